r"""Attention transfer (AT): where the student looks, it is to look as the teacher does.

Paper: Zagoruyko & Komodakis 2017, "Paying More Attention to Attention" (https://arxiv.org/abs/1612.03928), equation 2
with p = 2, squared instead of plain distance. For each stage,

    A(f) = normalise(mean_c f_c^2),     loss = mean over images and places of (A(student) - A(teacher))^2
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.base import Example, FeatureLoss, Seen, mismatch
from sqakd.kd.shapes import is_map, to_smaller


def attention(feature: Tensor) -> Tensor:
    """Unit-length map of where a feature has its energy, [N, C, H, W] -> [N, H W].

    Example:
        >>> import torch
        >>> attention(torch.ones(1, 3, 2, 2)).tolist()
        [[0.5, 0.5, 0.5, 0.5]]
    """
    return F.normalize(feature.float().square().mean(dim=1).flatten(1))


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the attention maps; the larger map is average-pooled to the smaller.

    Args:
        student: [N, C, H, W].
        teacher: [N, C', H', W'].
    """
    student, teacher = to_smaller(student, teacher)
    return (attention(student) - attention(teacher)).square().mean()


class AttentionTransfer(FeatureLoss):
    """Of every stage's output."""

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return list(layers[1:-1])

    def build(self, example: Example) -> None:
        for name, student, teacher in zip(self.names, example.student, example.teacher, strict=True):
            if not (is_map(student) and is_map(teacher)):
                raise mismatch(self, name, student, teacher, "two maps [C, H, W]")

    def forward(self, seen: Seen) -> list[Tensor]:
        return [attention_loss(s, t) for s, t in zip(seen.student, seen.teacher, strict=True)]

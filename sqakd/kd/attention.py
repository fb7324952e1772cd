r"""Attention transfer (AT): the student's maps should have their energy at the same positions as the teacher's.

Paper: Zagoruyko & Komodakis 2017, "Paying More Attention to Attention" (https://arxiv.org/abs/1612.03928), equation 2
with p = 2; the distance is squared here, the paper's is not. For each stage, with a map f [N, C, H, W],

    A(f) = normalise(mean_c f_c^2),     loss = mean over images and positions of (A(student) - A(teacher))^2

where normalise scales the H W values of an image to unit length.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sqakd.kd.base import FeatureBatch
from sqakd.kd.inputs import StageMaps
from sqakd.kd.shapes import to_smaller


def attention(feature: Tensor) -> Tensor:
    """Return the attention map of each image: the energy at each position, scaled to unit length.

    Args:
        feature: [N, C, H, W].

    Returns:
        [N, H W].

    Example:
        >>> import torch
        >>> attention(torch.ones(1, 3, 2, 2)).tolist()
        [[0.5, 0.5, 0.5, 0.5]]
    """
    return F.normalize(feature.float().square().mean(dim=1).flatten(1))


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of the attention maps; the larger map is average-pooled to the smaller.

    Args:
        student: [N, C, H, W].
        teacher: [N, C', H', W'].
    """
    student, teacher = to_smaller(student, teacher)
    return (attention(student) - attention(teacher)).square().mean()


class AttentionTransfer(StageMaps):
    """Attention transfer at the map of each stage."""

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        return [attention_loss(s, t) for s, t in zip(batch.student, batch.teacher, strict=True)]

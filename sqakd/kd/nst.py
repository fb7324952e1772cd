r"""Neuron selectivity transfer (NST): a channel is to fire at the places where some channel of the teacher fires.

Paper: Huang & Wang 2017, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer"
(https://arxiv.org/abs/1707.01219): squared maximum mean discrepancy between the student's and the teacher's
sets of channels, here with the polynomial kernel of degree 2 and offset 0. For each stage,

    loss = mean k(t, t) + mean k(s, s) - 2 mean k(s, t),    k(a, b) = (a . b)^2,

each channel a vector over the places, of unit length; the means go over images and all pairs of channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.base import Example, FeatureLoss, Seen, mismatch
from sqakd.kd.shapes import is_map, to_smaller


def mean_kernel(a: Tensor, b: Tensor) -> Tensor:
    """Mean of the squared products of all pairs of channels; [N, C, P] and [N, C', P] of unit rows."""
    return (a @ b.transpose(1, 2)).square().mean()


def selectivity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the two sets of channels; the larger map is average-pooled to the smaller.

    Args:
        student: [N, C, H, W].
        teacher: [N, C', H', W'].

    Example:
        >>> import torch
        >>> one = torch.tensor([[[[1.0, 0.0]]]])
        >>> float(selectivity_loss(one, one)), float(selectivity_loss(one, one.flip(3)))
        (0.0, 2.0)
    """
    student, teacher = (F.normalize(f.float().flatten(2), dim=2) for f in to_smaller(student, teacher))
    return mean_kernel(teacher, teacher) + mean_kernel(student, student) - 2 * mean_kernel(student, teacher)


class NeuronSelectivityTransfer(FeatureLoss):
    """Of every stage's output."""

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return list(layers[1:-1])

    def build(self, example: Example) -> None:
        for name, student, teacher in zip(self.names, example.student, example.teacher, strict=True):
            if not (is_map(student) and is_map(teacher)):
                raise mismatch(self, name, student, teacher, "two maps [C, H, W]")

    def forward(self, seen: Seen) -> list[Tensor]:
        return [selectivity_loss(s, t) for s, t in zip(seen.student, seen.teacher, strict=True)]

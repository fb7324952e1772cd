r"""Neuron selectivity transfer (NST): the student's channels should respond at the positions where the teacher's do.

Paper: Huang & Wang 2017, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer"
(https://arxiv.org/abs/1707.01219). The loss is the squared maximum mean discrepancy (MMD) between the student's and the
teacher's sets of channels, here with the polynomial kernel of degree 2 and offset 0. For each stage,

    loss = mean k(t, t) + mean k(s, s) - 2 mean k(s, t),    k(a, b) = (a . b)^2

A channel is a vector over the H W positions, scaled to unit length. The means are over images and all pairs of
channels, so student and teacher may have different numbers of channels.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sqakd.kd.base import FeatureBatch
from sqakd.kd.inputs import StageMaps
from sqakd.kd.shapes import to_smaller


def mean_kernel(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean of the kernel over images and all pairs of channels.

    Args:
        a: [N, C, P], channels as unit vectors over P positions.
        b: [N, C', P].
    """
    return (a @ b.transpose(1, 2)).square().mean()


def selectivity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared MMD of the two sets of channels; the larger map is average-pooled to the smaller.

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


class NeuronSelectivityTransfer(StageMaps):
    """Neuron selectivity transfer at the map of each stage."""

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        return [selectivity_loss(s, t) for s, t in zip(batch.student, batch.teacher, strict=True)]

r"""Similarity-preserving distillation (SP): images that the teacher finds alike are to be alike for the student.

Paper: Tung & Mori 2019, "Similarity-Preserving Knowledge Distillation" (https://arxiv.org/abs/1907.09682), at
the last stage only. With F the features of a batch, one image per row,

    G = normalise rows(F F^T),     loss = ||G(teacher) - G(student)||^2 / N^2
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.base import FeatureLoss, Seen


def similarities(feature: Tensor) -> Tensor:
    """How alike the images of a batch are, [N, ...] -> [N, N] with rows of unit length.

    Example:
        >>> import torch
        >>> similarities(torch.eye(2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    rows = feature.float().flatten(1)
    return F.normalize(rows @ rows.T)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the similarities.

    Args:
        student: [N, ...].
        teacher: [N, ...], of any shape.
    """
    return (similarities(student) - similarities(teacher)).square().mean()


class SimilarityPreserving(FeatureLoss):
    """Of the last stage's output; any two shapes go together."""

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return [layers[-2]]

    def forward(self, seen: Seen) -> list[Tensor]:
        return [similarity_loss(s, t) for s, t in zip(seen.student, seen.teacher, strict=True)]

r"""Similarity-preserving distillation (SP): images that are similar for the teacher should be similar for the student.

Paper: Tung & Mori 2019, "Similarity-Preserving Knowledge Distillation" (https://arxiv.org/abs/1907.09682), at the last
stage only. With F the features of a batch, one row per image,

    G = normalise rows(F F^T)  [N, N],     loss = ||G(teacher) - G(student)||^2 / N^2
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.base import FeatureBatch, FeatureLoss


def similarities(feature: Tensor) -> Tensor:
    """Return the similarities between the images of a batch, as rows of unit length.

    Args:
        feature: [N, ...]; all other dimensions are flattened.

    Returns:
        [N, N].

    Example:
        >>> import torch
        >>> similarities(torch.eye(2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    rows = feature.float().flatten(1)
    return F.normalize(rows @ rows.T)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of the similarities.

    Args:
        student: [N, ...].
        teacher: [N, ...]; the other dimensions may differ from the student's.
    """
    return (similarities(student) - similarities(teacher)).square().mean()


class SimilarityPreserving(FeatureLoss):
    """Similarity-preserving distillation at the map of the last stage. Student and teacher may have any shapes."""

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return [layers[-2]]

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        return [similarity_loss(s, t) for s, t in zip(batch.student, batch.teacher, strict=True)]

"""Shapes of features that several losses bring together."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def is_map(feature: Tensor) -> bool:
    """Whether a feature is [N, C, H, W]."""
    return feature.ndim == 4


def to_smaller(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps with the height and width of the smaller one, the other average-pooled."""
    height, width = min(student.shape[2:], teacher.shape[2:])

    def pool(feature: Tensor) -> Tensor:
        return feature if feature.shape[2:] == (height, width) else F.adaptive_avg_pool2d(feature, (height, width))

    return pool(student), pool(teacher)


def vector(feature: Tensor) -> Tensor:
    """[N, D] as it is, a map [N, C, H, W] averaged over its places."""
    return feature.mean(dim=(2, 3)) if is_map(feature) else feature

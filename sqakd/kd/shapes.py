"""Operations on feature shapes that several losses share."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def is_map(feature: Tensor) -> bool:
    """Return True if a feature is a map [N, C, H, W]."""
    return feature.ndim == 4


def to_smaller(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool the larger of two maps to the height and width of the smaller one.

    Args:
        student: [N, C, H, W].
        teacher: [N, C', H', W'].

    Returns:
        Both maps, with the height and width of the map whose (height, width) is smaller.
    """
    height, width = min(student.shape[2:], teacher.shape[2:])

    def pool(feature: Tensor) -> Tensor:
        rows, columns = feature.shape[2:]
        if (rows, columns) == (height, width):
            return feature
        if rows % height == 0 and columns % width == 0:  # equal, and its backward pass is deterministic on a GPU too
            return F.avg_pool2d(feature, (rows // height, columns // width))
        return F.adaptive_avg_pool2d(feature, (height, width))

    return pool(student), pool(teacher)


def vector(feature: Tensor) -> Tensor:
    """Return one vector per image, [N, D]; a map [N, C, H, W] is averaged over its positions."""
    return feature.mean(dim=(2, 3)) if is_map(feature) else feature

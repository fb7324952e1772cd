"""Base classes and checks for the two usual inputs of a feature loss: the map of each stage, or the pooled vector.

A stage of a network is a group of blocks with the same resolution; its map is the output of its last block. The pooled
vector is the input of the classifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from sqakd.kd.base import FeatureLoss, SetupInfo, mismatch
from sqakd.kd.shapes import is_map, vector


class StageMaps(FeatureLoss):
    """A loss on the map of each stage."""

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return list(layers[1:-1])

    def setup(self, info: SetupInfo) -> None:
        check_maps(self, self.pairs(info))


class PooledVector(FeatureLoss):
    """A loss on the pooled vector."""

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return [layers[-1]]

    def setup(self, info: SetupInfo) -> None:
        check_vectors(self, self.pairs(info))


def check_maps(loss: FeatureLoss, pairs: Iterable[tuple[str, Tensor, Tensor]]) -> None:
    """Check that features are maps [N, C, H, W].

    Args:
        loss: the loss that compares them, for the message.
        pairs: (name, student's feature, teacher's feature) of each tap.

    Raises:
        SqakdError: if one of them is not a map.
    """
    for name, student, teacher in pairs:
        if not (is_map(student) and is_map(teacher)):
            raise mismatch(loss, name, student, teacher, "two maps [C, H, W]")


def check_vectors(loss: FeatureLoss, pairs: Iterable[tuple[str, Tensor, Tensor]]) -> None:
    """Check that features are vectors [N, D], or maps [N, C, H, W], which `vector` averages over their positions.

    Args:
        loss: the loss that compares them, for the message.
        pairs: (name, student's feature, teacher's feature) of each tap.

    Raises:
        SqakdError: if one of them is neither.
    """
    for name, student, teacher in pairs:
        if vector(student).ndim != 2 or vector(teacher).ndim != 2:
            raise mismatch(loss, name, student, teacher, "two vectors [D] or maps [C, H, W]")

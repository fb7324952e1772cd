"""Checks of what data sets get: the statistics of the channels, and the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sqakd.dataset.errors import DataError
from sqakd.errors import some
from sqakd.numbers import is_number

CHANNELS = 3
# Smaller than any scale of pixels in use: 1/65535 gives a network the values of 16-bit images.
SMALLEST_STD = 1e-6


def check_mean(mean: Any) -> None:
    """Refuse means that are not those of three channels with pixels scaled to 0 .. 1.

    Raises:
        DataError: if they are refused.
    """
    _check_channels("mean", mean, lowest=0)


def check_std(std: Any) -> None:
    """Refuse standard deviations that are not those of three channels with pixels scaled to 0 .. 1.

    Raises:
        DataError: if they are refused.
    """
    _check_channels("std", std, lowest=SMALLEST_STD)


def check_classes(names: Sequence[str]) -> None:
    """Refuse labelled images of fewer than two classes: every prediction would be right.

    Raises:
        DataError: naming the class.
    """
    if len(names) < 2:
        raise DataError(f"all images are of one class ({some(names)}); expected at least two", topic="data.one_class")


def check_labels(labels: Tensor, names: Sequence[str]) -> None:
    """Refuse labels that are not positions of classes.

    Args:
        labels: [N] of one part of the images.
        names: of the classes.

    Raises:
        DataError: naming the smallest and the largest label.
    """
    lowest, highest = (int(value) for value in labels.aminmax())
    if lowest < 0 or highest >= len(names):
        raise DataError(f"labels from {lowest} to {highest} for {len(names)} classes; expected 0 to {len(names) - 1}")


def _check_channels(name: str, values: Any, *, lowest: float) -> None:
    given = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    if len(given) != CHANNELS or not all(is_number(value) and lowest <= value <= 1 for value in given):
        raise DataError(
            f"{name}={given or values!r}: expected {CHANNELS} numbers from {lowest:g} to 1, one per channel, for pixels"
            " scaled to 0 .. 1",
            topic="data.statistics",
        )

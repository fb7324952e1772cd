"""Checks of what data sets and transforms get: sizes, strengths, the statistics of the channels, and the classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sqakd.dataset.errors import DataError
from sqakd.errors import some
from sqakd.images import MOST_PIXELS
from sqakd.numbers import check_not_negative, check_whole, is_number

CHANNELS = 3
LARGEST_SIDE = math.isqrt(MOST_PIXELS)  # pixels; no larger image is read
STRONGEST = 10  # blend of an augmentation; percentages are larger
# Smaller than any scale of pixels in use: 1/65535 gives a network the values of 16-bit images.
SMALLEST_STD = 1e-6


def check_side(name: str, value: Any, *, minimum: int = 1) -> None:
    """Refuse a number of pixels along a side of an image that is no whole number, or too small or too large.

    Raises:
        SqakdError: if the number is refused.
    """
    check_whole(name, value, minimum=minimum)
    if value > LARGEST_SIDE:
        raise DataError(f"{name}={value}: expected at most {LARGEST_SIDE} pixels")


def check_strength(name: str, value: Any) -> None:
    """Refuse a strength that is no number of at least 0, or a percentage.

    Raises:
        SqakdError: if the strength is refused.
    """
    check_not_negative(name, value)
    if value > STRONGEST:
        raise DataError(f"{name}={value}: expected at most {STRONGEST}; 0.2 stands for 20 percent")


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

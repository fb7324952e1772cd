"""Means, standard errors and verdicts: their formulas, and no verdict without evidence."""

from __future__ import annotations

import math
import struct

import pytest

from sqakd.report.statistics import (
    Difference,
    difference,
    difference_to_published,
    mean_std,
    paired_difference,
    standard_error,
)


def test_mean_and_standard_deviation() -> None:
    assert mean_std([3.0]) == (3.0, 0.0)
    mean, std = mean_std([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert std == pytest.approx(math.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))


def test_the_standard_error_of_a_difference_has_both_sides() -> None:
    found = difference([90.0, 92.0, 94.0], [89.0, 90.0])
    assert found is not None
    assert found.value == pytest.approx(2.5)
    assert found.standard_error == pytest.approx(math.sqrt(4 / 3 + 0.5 / 2))
    assert (found.n, found.n_base) == (3, 2)


def test_a_published_number_adds_no_standard_error() -> None:
    found = difference_to_published([90.0, 92.0, 94.0], 91.5)
    assert found is not None
    assert found.value == pytest.approx(0.5)
    assert found.standard_error == pytest.approx(2 / math.sqrt(3))
    assert (found.n, found.n_base) == (3, 0)


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (2.1, 1.0, "better"),
        (-2.1, 1.0, "worse"),
        (2.0, 1.0, "not distinguishable"),
        (-1.9, 1.0, "not distinguishable"),
        (0.0, 1.0, "not distinguishable"),
    ],
)
def test_verdicts_need_more_than_two_standard_errors(value: float, error: float, verdict: str) -> None:
    assert Difference(value, error, 3, 3, 4.0).verdict == verdict


@pytest.mark.parametrize(("ours", "base"), [([99.0], [90.0, 91.0]), ([99.0, 98.0], [90.0]), ([99.0], [90.0])])
def test_a_single_seed_has_no_verdict(ours: list[float], base: list[float]) -> None:
    found = difference(ours, base)
    assert found is not None
    assert (found.standard_error, found.verdict) == (None, "-")


@pytest.mark.parametrize("base", [98.0, 99.0])
def test_equal_seeds_have_no_verdict(base: float) -> None:
    for found in (difference([99.0] * 3, [base] * 3), paired_difference([(99.0, base)] * 3)):
        assert found is not None
        assert (found.verdict, found.p) == ("-", None)


def percent(counts: list[int], images: int) -> list[float]:
    """Return shares of images as a record has them, from 32-bit arithmetic, in percent."""
    return [100 * struct.unpack("f", struct.pack("f", count / images))[0] for count in counts]


@pytest.mark.parametrize("images", [360, 10_000, 50_000])
def test_exactly_two_standard_errors_are_not_beyond_them(images: int) -> None:
    """The difference of these counts is 4/3 images, and its standard error is 2/3 of an image."""
    for first in range(images - 5, images - 300, -7):
        ours, base = percent([first + 2, first + 1, first], images), percent([first, first, first - 1], images)
        for a, b in ((ours, base), (base, ours)):
            found = difference(a, b)
            assert found is not None
            assert found.verdict == "not distinguishable", (a, b)


def test_equal_counts_from_other_epochs_are_equal() -> None:
    """The mean of the last five epochs may be the same from different scores, up to their rounding."""
    epochs = [[359, 358, 357, 359, 357], [358, 358, 358, 358, 358], [356, 360, 356, 360, 358]]
    ours = [math.fsum(percent(counts, 360)) / 5 for counts in epochs]
    base = percent([357] * 3, 360)
    found = difference(ours, base)
    assert found is not None
    assert (found.verdict, found.p) == ("-", None)


def test_degrees_of_freedom_are_those_of_welch() -> None:
    equal = difference([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    one_without_spread = difference([1.0, 2.0, 3.0], [4.0, 4.0, 4.0, 4.0])
    published = difference_to_published([1.0, 2.0, 3.0], 4.0)
    assert equal is not None
    assert one_without_spread is not None
    assert published is not None
    assert equal.freedom == pytest.approx(4)
    assert one_without_spread.freedom == pytest.approx(2)
    assert published.freedom == 2


def test_there_is_no_difference_without_values() -> None:
    assert difference([], [1.0]) is None
    assert difference([1.0], []) is None
    assert difference_to_published([], 1.0) is None
    assert difference_to_published([1.0], None) is None
    assert standard_error([1.0]) is None

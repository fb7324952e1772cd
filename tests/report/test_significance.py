"""Probabilities against scipy, against enumeration by hand, and their properties."""

from __future__ import annotations

import math
import random
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sqakd.report.significance import holm, permutation_p, two_sided_p
from sqakd.report.statistics import difference

Strata = list[tuple[list[float], list[float]]]


@pytest.mark.parametrize("freedom", [1.0, 1.37, 2.0, 3.2, 4.0, 17.5, 400.0])
@pytest.mark.parametrize("t", [0.0, 1e-6, 0.5, 2.0, 2.5, 12.0, 1e4])
def test_p_is_that_of_students_t(t: float, freedom: float) -> None:
    expected = 2 * stats.t.sf(t, freedom)
    assert two_sided_p(t, freedom) == pytest.approx(expected, rel=1e-7, abs=1e-15)
    assert two_sided_p(-t, freedom) == two_sided_p(t, freedom)


def test_p_of_a_difference_is_that_of_welch() -> None:
    ours, base = [95.0, 97.5, 96.25], [94.0, 94.25, 93.0, 96.0]
    found = difference(ours, base)
    assert found is not None
    assert found.p == pytest.approx(stats.ttest_ind(ours, base, equal_var=False).pvalue)


def enumerated(strata: Strata) -> float:
    """Return the same p by enumerating all joint assignments."""
    choices = []
    for ours, base in strata:
        values, n = np.array([*ours, *base]), len(ours)
        masks = [np.isin(np.arange(len(values)), chosen) for chosen in combinations(range(len(values)), n)]
        choices.append([values[mask].mean() - values[~mask].mean() for mask in masks])
    observed = sum(differences[0] for differences in choices)  # the first mask is our side
    sums = [abs(sum(joint)) for joint in product(*choices)]
    return float(np.mean([value >= abs(observed) - 1e-3 for value in sums]))


@pytest.mark.parametrize("sizes", [[(3, 3)], [(3, 3), (3, 3), (3, 3)], [(2, 3), (4, 2)], [(1, 3), (5, 2), (2, 2)]])
def test_permutation_test_counts_every_joint_assignment(sizes: list[tuple[int, int]]) -> None:
    chance = random.Random(0)
    for _ in range(5):
        strata = [
            tuple([100 * np.float32(chance.randint(340, 350) / 360) for _ in range(n)] for n in pair) for pair in sizes
        ]
        assert permutation_p(strata) == pytest.approx(enumerated(strata), abs=1e-12)  # type: ignore[arg-type]


def test_permutation_test_agrees_with_scipy_for_one_stratum() -> None:
    ours, base = [97.0, 98.25, 95.5, 99.0], [94.0, 95.75, 96.0]

    def statistic(x: Any, y: Any, axis: int) -> Any:
        return np.abs(x.mean(axis) - y.mean(axis))

    expected = stats.permutation_test((ours, base), statistic, alternative="greater", vectorized=True).pvalue
    assert permutation_p([(ours, base)]) == pytest.approx(expected)


def test_permutation_test_has_its_smallest_p_if_each_stratum_is_separated() -> None:
    separated = ([98.0, 97.0, 98.5], [96.0, 95.0, 96.5])
    assert permutation_p([separated] * 4) == pytest.approx(2 / math.comb(6, 3) ** 4)
    swapped = (separated[1], separated[0])
    assert permutation_p([swapped] * 4) == permutation_p([separated] * 4)
    assert permutation_p([separated, swapped]) == 1


def test_permutation_test_of_many_strata_does_not_compute_all_their_sums() -> None:
    chance = random.Random(0)
    strata = [
        ([chance.uniform(80, 90) for _ in range(3)], [chance.uniform(60, 70) for _ in range(3)]) for _ in range(6)
    ]  # 64 million sums of 6 numbers, but two times 8,000 sums of 3
    assert permutation_p(strata) == 2 / math.comb(6, 3) ** 6


def test_holm_multiplies_by_the_number_of_tests_that_are_left() -> None:
    assert holm([0.01, 0.04, 0.03, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.9])
    assert holm([0.5, None, 0.6]) == [1.0, None, 1.0]
    assert holm([]) == []

"""Probabilities of chance results: Student's t, the exact stratified permutation test, and Holm's correction.

Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure". The module needs no package, because the report
starts without numpy.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

# Scores are rounded to this many points, so that equal counts of images, kept as 32-bit shares, give equal sums.
UNIT = 1e-4
# A rounded mean is off by up to 0.6 units. A difference of means has two of them, and two differences are compared.
SLACK = 3  # units for each stratum


def two_sided_p(t: float, freedom: float) -> float:
    """Return the probability that Student's t is at least as far from 0 as `t`.

    Args:
        t: a difference divided by its standard error.
        freedom: degrees of freedom, at least 1; need not be whole.

    Example:
        >>> round(two_sided_p(2.0, 4), 3), round(two_sided_p(2.0, 2), 3)
        (0.116, 0.184)
    """
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), by its power series (https://dlmf.nist.gov/8.17.E8)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):  # beyond the peak the series of the mirrored function converges faster
        return 1 - _incomplete_beta(1 - x, b, a)
    term = total = 1.0
    n = 0
    while term > total * 1e-17:
        term *= x * (a + b + n) / (a + 1 + n)
        total += term
        n += 1
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return total * math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta) / a


def permutation_p(strata: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """Return the exact two-sided p of a difference that several strata share.

    Within each stratum, every assignment of the runs to the two sides is equally likely if the method has no effect.
    The statistic is the sum over the strata of the difference of means. The result is the share of all joint
    assignments whose statistic is at least as far from 0 as the observed one. All of them count; nothing is drawn.

    Args:
        strata: scores of our runs and of the base, in points, for each stratum; neither side is empty.

    Example:
        >>> permutation_p([([3.0, 4.0], [1.0, 2.0])] * 2)  # 2 of 6 x 6 assignments
        0.05555555555555555
    """
    common = math.lcm(*(len(ours) * len(base) for ours, base in strata))  # keeps the statistic whole
    observed, halves = 0, [Counter({0: 1}), Counter({0: 1})]
    for ours, base in strata:
        values = [round(score / UNIT) for score in (*ours, *base)]
        n, n_base = len(ours), len(base)
        scale, shift = common // (n * n_base), n * sum(values)
        # chosen / n - (sum(values) - chosen) / n_base, times common
        ways = {scale * (chosen * (n + n_base) - shift): number for chosen, number in _sums(values, n).items()}
        observed += scale * (sum(values[:n]) * (n + n_base) - shift)
        halves.sort(key=len)
        halves[0] = _added(halves[0], ways)
    least = abs(observed) - SLACK * common * len(strata)
    first, second = halves
    return _far(first, second, least) / (first.total() * second.total())


def _sums(values: Sequence[int], n: int) -> Counter[int]:
    """Return the sums of all choices of n values, each with the number of choices that have the sum."""
    sums: list[Counter[int]] = [Counter({0: 1}), *(Counter() for _ in range(n))]
    for value in values:
        for size in range(n, 0, -1):  # downwards, so that no value is chosen twice
            for total, number in sums[size - 1].items():
                sums[size][total + value] += number
    return sums[n]


def _added(first: Mapping[int, int], second: Mapping[int, int]) -> Counter[int]:
    """Return the distribution of the sum of two independent numbers, as counts."""
    joint: Counter[int] = Counter()
    for a, ways in first.items():
        for b, more in second.items():
            joint[a + b] += ways * more
    return joint


def _far(first: Counter[int], second: Counter[int], least: int) -> int:
    """Count how often the sum of two independent numbers is at least `least` away from 0.

    The distribution of the sum is not computed: it may have millions of values where each number has thousands.
    """
    if least <= 0:
        return first.total() * second.total()
    values = sorted(second)
    up_to = [0, *accumulate(second[value] for value in values)]
    far = 0
    for value, ways in first.items():
        below = up_to[bisect_right(values, -least - value)]
        above = up_to[-1] - up_to[bisect_left(values, least - value)]
        far += ways * (below + above)
    return far


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Return each p after Holm's correction for the number of tests; a missing p is no test.

    The probability that any of the results is below 0.05 by chance alone is then at most 0.05, however the tests depend
    on each other.

    Example:
        >>> [None if p is None else round(p, 3) for p in holm([0.01, None, 0.04, 0.03])]
        [0.03, None, 0.06, 0.06]
    """
    tests = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, i) in enumerate(tests):
        largest = max(largest, min(1.0, p * (len(tests) - rank)))
        corrected[i] = largest
    return corrected

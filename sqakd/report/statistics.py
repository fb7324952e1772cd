"""Means over seeds, and differences between means with their standard error and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqakd.report.significance import two_sided_p

STANDARD_ERRORS = 2
BETTER, WORSE, NOT_DISTINGUISHABLE, NO_VERDICT = "better", "worse", "not distinguishable", "-"
# In points; smaller values are zero. Records keep scores as 32-bit shares, so a difference and twice its standard error
# may each be off by 1e-5 points. Equal counts of images must be equal here, too: one of 50,000 images is 2e-3 points.
ROUNDING = 1e-4


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (n - 1 in the denominator; 0 for a single value)."""
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else 0.0


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean, std / sqrt(n); None for a single value."""
    return mean_std(values)[1] / math.sqrt(len(values)) if len(values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """Our mean minus that of a base.

    Attributes:
        value: the difference in points.
        standard_error: of the value; None if a side has a single seed. That of pairs is of their differences.
        n: number of our seeds.
        n_base: number of seeds of the base; 0 for a published number. No standard deviation was published, so the
            standard error is then that of our mean.
        freedom: degrees of freedom of the standard error; None if a side has a single seed.
    """

    value: float
    standard_error: float | None
    n: int
    n_base: int
    freedom: float | None

    @property
    def verdict(self) -> str:
        """Better or worse beyond two standard errors, not distinguishable up to two, "-" without a standard error.

        A difference of exactly two standard errors, which counts of images often have, is not beyond them. If all seeds
        of both sides, or the differences of all pairs, came out equal, there is no verdict either: on a few hundred
        images equal results happen by chance, so a standard error of zero says nothing about the spread.
        """
        if self.standard_error is None or self.standard_error < ROUNDING:
            return NO_VERDICT
        if abs(self.value) <= STANDARD_ERRORS * self.standard_error + ROUNDING:
            return NOT_DISTINGUISHABLE
        return BETTER if self.value > 0 else WORSE

    @property
    def p(self) -> float | None:
        """The two-sided p of the t test, Welch's or that of pairs; None without a standard error, or if it is 0."""
        if self.standard_error is None or self.freedom is None or self.standard_error < ROUNDING:
            return None
        return two_sided_p(self.value / self.standard_error, self.freedom)

    @property
    def is_distinguishable(self) -> bool:
        """Whether the verdict is better or worse."""
        return self.verdict in (BETTER, WORSE)


def difference(ours: Sequence[float], base: Sequence[float]) -> Difference | None:
    """Return the difference of two means of independent seeds; None if a side is empty.

    The standard error is sqrt(std^2 / n + std_base^2 / n_base). Its degrees of freedom are those of Welch and
    Satterthwaite: between the smaller of n - 1 and n_base - 1, and their sum.
    """
    if not ours or not base:
        return None
    value, counts = mean_std(ours)[0] - mean_std(base)[0], (len(ours), len(base))
    errors = standard_error(ours), standard_error(base)
    if errors[0] is None or errors[1] is None:
        return Difference(value, None, *counts, None)
    error = math.hypot(errors[0], errors[1])
    parts = errors[0] ** 4 / (len(ours) - 1) + errors[1] ** 4 / (len(base) - 1)
    return Difference(value, error, *counts, error**4 / parts if error >= ROUNDING else None)


def paired_difference(pairs: Sequence[tuple[float, float]]) -> Difference | None:
    """Return the mean difference of ours and base over pairs, with the standard error of the differences.

    The result is None without a pair.

    Example:
        >>> found = paired_difference([(91.0, 90.0), (93.0, 91.0), (95.0, 92.0)])
        >>> found.value, round(found.standard_error, 3), found.freedom
        (2.0, 0.577, 2)
    """
    if not pairs:
        return None
    n, differences = len(pairs), [ours - base for ours, base in pairs]
    return Difference(mean_std(differences)[0], standard_error(differences), n, n, n - 1 if n > 1 else None)


def difference_to_published(ours: Sequence[float], published: float | None) -> Difference | None:
    """Return our mean minus a published number; None if either is missing."""
    if not ours or published is None:
        return None
    n = len(ours)
    return Difference(mean_std(ours)[0] - published, standard_error(ours), n, 0, n - 1 if n > 1 else None)

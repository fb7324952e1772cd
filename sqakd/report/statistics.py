"""Means over seeds, and differences between means with their standard error and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

STANDARD_ERRORS = 2
BETTER, WORSE, NOT_DISTINGUISHABLE, NO_VERDICT = "better", "worse", "not distinguishable", "-"
# Smaller values are rounding errors of the mean.
ZERO = 1e-9


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
        standard_error: of the value; None if a side has a single seed.
        n: number of our seeds.
        n_base: number of seeds of the base; 0 for a published number. No standard deviation was published, so the
            standard error is then that of our mean.
    """

    value: float
    standard_error: float | None
    n: int
    n_base: int

    @property
    def verdict(self) -> str:
        """Better or worse beyond two standard errors, not distinguishable within, "-" without a standard error.

        If all seeds of both sides came out equal, there is no verdict either: on a few hundred images equal results
        happen by chance, so a standard error of zero says nothing about the spread.
        """
        if self.standard_error is None or (self.standard_error < ZERO and abs(self.value) > ZERO):
            return NO_VERDICT
        if abs(self.value) <= STANDARD_ERRORS * self.standard_error:
            return NOT_DISTINGUISHABLE
        return BETTER if self.value > 0 else WORSE

    @property
    def is_distinguishable(self) -> bool:
        """Whether the verdict is better or worse."""
        return self.verdict in (BETTER, WORSE)


def difference(ours: Sequence[float], base: Sequence[float]) -> Difference | None:
    """Return the difference of two means of independent seeds; None if a side is empty.

    The standard error is sqrt(std^2 / n + std_base^2 / n_base).
    """
    if not ours or not base:
        return None
    errors = standard_error(ours), standard_error(base)
    error = None if errors[0] is None or errors[1] is None else math.hypot(errors[0], errors[1])
    return Difference(mean_std(ours)[0] - mean_std(base)[0], error, len(ours), len(base))


def difference_to_published(ours: Sequence[float], published: float | None) -> Difference | None:
    """Return our mean minus a published number; None if either is missing."""
    if not ours or published is None:
        return None
    return Difference(mean_std(ours)[0] - published, standard_error(ours), len(ours), 0)

"""Means over seeds and differences between them, which are called better or worse only beyond two standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

STANDARD_ERRORS = 2
NO_VERDICT = "-"


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1; 0 for a single value)."""
    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(spread / (len(values) - 1)) if len(values) > 1 else 0.0


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean: std / sqrt(n); None for a single value, which has no spread."""
    return mean_std(values)[1] / math.sqrt(len(values)) if len(values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """Ours minus a base.

    Attributes:
        value: in points.
        standard_error: of the value, or None where a single seed gives no spread.
        n: seeds of ours.
        n_base: seeds of the base; 0 if it is a published number, whose spread nobody told: the standard error is that
            of ours alone.
    """

    value: float
    standard_error: float | None
    n: int
    n_base: int

    @property
    def verdict(self) -> str:
        """better or worse beyond two standard errors, not told apart within; "-" where there is no spread to judge by.

        Seeds that all came out equal on both sides have shown no spread either: on a few hundred images that is chance.
        """
        if self.standard_error is None or (self.standard_error < 1e-9 and abs(self.value) > 1e-9):
            return NO_VERDICT
        if abs(self.value) <= STANDARD_ERRORS * self.standard_error:
            return "not told apart"
        return "better" if self.value > 0 else "worse"


def difference(ours: Sequence[float], base: Sequence[float]) -> Difference | None:
    """Of two means of independent seeds: se**2 = std**2 / n + std_base**2 / n_base; None if a side is empty."""
    if not ours or not base:
        return None
    errors = standard_error(ours), standard_error(base)
    error = None if errors[0] is None or errors[1] is None else math.hypot(errors[0], errors[1])
    return Difference(mean_std(ours)[0] - mean_std(base)[0], error, len(ours), len(base))


def difference_to_published(ours: Sequence[float], published: float | None) -> Difference | None:
    """Ours minus a published number, which comes without a spread; None if either is missing."""
    if not ours or published is None:
        return None
    return Difference(mean_std(ours)[0] - published, standard_error(ours), len(ours), 0)

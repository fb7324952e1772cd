"""Learning rates as functions of the step, without any state to save or restore."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from sqakd.numbers import check_not_negative, check_whole


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The position of a training within its length.

    Attributes:
        step: optimizer steps done before this one.
        steps_per_epoch: optimizer steps of one epoch.
        epochs: length of the training.
    """

    step: int
    steps_per_epoch: int
    epochs: int


class Schedule(ABC):
    """Base of all schedules: a learning rate for each step."""

    @abstractmethod
    def lr(self, peak: float, progress: Progress) -> float:
        """Return the learning rate of one step, to be set before the optimizer takes the step.

        Args:
            peak: the parameter group's highest learning rate.
            progress: position of the step.
        """


class CosinePerEpoch(Schedule):
    """Cosine from the peak to 0, constant within an epoch; for CIFAR's rows."""

    def lr(self, peak: float, progress: Progress) -> float:
        return peak * cosine(progress.step // progress.steps_per_epoch, progress.epochs)


class WarmupCosine(Schedule):
    """A linear warm-up from `base`, then cosine to 0, with a new value at each step; for Tiny-ImageNet's rows.

        t < W    base + (peak - base) (t - 1) / (W - 1)
        t >= W   peak (1 + cos(pi (t - W) / (M - W))) / 2            M steps in all

    The warm-up reaches `base` at its second step, as in SQAKD's code, and is never below 0.

    Args:
        base: learning rate at the start of the warm-up.
        steps: W, length of the warm-up.

    Raises:
        SqakdError: if an argument has another value.
    """

    def __init__(self, *, base: float, steps: int) -> None:
        check_not_negative("base", base)
        check_whole("steps", steps, minimum=2)
        self.base, self.steps = base, steps

    def lr(self, peak: float, progress: Progress) -> float:
        if progress.step < self.steps:
            # At step 0 the line is one step below `base`, which is negative for a short warm-up to a high peak.
            return max(0.0, self.base + (peak - self.base) * (progress.step - 1) / (self.steps - 1))
        return peak * cosine(progress.step - self.steps, progress.steps_per_epoch * progress.epochs - self.steps)


def cosine(done: float, whole: float) -> float:
    """Return the factor of cosine annealing, (1 + cos(pi e / E)) / 2, which falls from 1 to 0.

    Source: Loshchilov & Hutter 2017, "SGDR" (https://arxiv.org/abs/1608.03983), equation 5 without restarts.

    Args:
        done: e, the part that is done.
        whole: E, the length in the same unit.

    Example:
        >>> cosine(0, 10), round(cosine(5, 10), 6)
        (1.0, 0.5)
    """
    return (1 + math.cos(math.pi * done / whole)) / 2

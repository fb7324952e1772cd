"""Learning rates as functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where training is.

    Attributes:
        step: optimizer steps done before this one.
        steps_per_epoch: optimizer steps of one epoch.
        epochs: length of the training.
    """

    step: int
    steps_per_epoch: int
    epochs: int


class Schedule(ABC):
    """A learning rate for each step."""

    @abstractmethod
    def lr(self, peak: float, progress: Progress) -> float:
        """Learning rate of one step, set before the optimizer takes it.

        Args:
            peak: the parameter group's own learning rate.
            progress: where training is.
        """


class CosinePerEpoch(Schedule):
    """Cosine from the peak to 0, constant within an epoch; CIFAR's rows."""

    def lr(self, peak: float, progress: Progress) -> float:
        return peak * cosine(progress.step // progress.steps_per_epoch, progress.epochs)


class WarmupCosine(Schedule):
    """A straight line from `base`, then cosine to 0, at each step; Tiny-ImageNet's rows.

        t < W    base + (peak - base) (t - 1) / (W - 1)
        t >= W   peak (1 + cos(pi (t - W) / (M - W))) / 2            M steps in all

    The line reaches `base` at its second step, as in SQAKD's code, and never goes below 0.

    Args:
        base: where the line starts.
        steps: W, length of the line.
    """

    def __init__(self, *, base: float, steps: int) -> None:
        if not isinstance(steps, int) or steps < 2 or not 0 <= base < math.inf:
            raise ValueError(f"recipe.schedule: base={base} steps={steps}: expected base >= 0 and steps of at least 2")
        self.base, self.steps = base, steps

    def lr(self, peak: float, progress: Progress) -> float:
        if progress.step < self.steps:
            # A short line to a high peak would start below 0.
            return max(0.0, self.base + (peak - self.base) * (progress.step - 1) / (self.steps - 1))
        return peak * cosine(progress.step - self.steps, progress.steps_per_epoch * progress.epochs - self.steps)


def cosine(done: float, whole: float) -> float:
    """Cosine annealing from 1 to 0, (1 + cos(pi e / E)) / 2.

    Source: Loshchilov & Hutter 2017, "SGDR" (https://arxiv.org/abs/1608.03983), equation 5 without restarts.

    Example:
        >>> cosine(0, 10), round(cosine(5, 10), 6)
        (1.0, 0.5)
    """
    return (1 + math.cos(math.pi * done / whole)) / 2

"""How a network is trained: optimizer, learning rates, length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from sqakd.training.schedule import Progress, Schedule


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One optimizer with two parameter groups, and their learning rates.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per optimizer step over all devices, divided by `accumulate`.
        accumulate: batches whose gradients are added up before a step.
        gradient_clip: largest norm of the whole gradient; None leaves it alone.
        optimizer: makes the optimizer from parameter groups (a torch class with its own arguments filled in).
        schedule: how the learning rates change.
        lr: highest learning rate of the network's parameters.
        quantizer_lr: highest learning rate of ranges and output scales.
        weight_decay: of the network's parameters; the quantizers' have none.
        label_smoothing: of the cross-entropy with labels, where the kd uses them.
    """

    epochs: int
    batch_size: int
    accumulate: int
    gradient_clip: float | None
    optimizer: Callable[..., Optimizer]
    schedule: Schedule
    lr: float
    quantizer_lr: float
    weight_decay: float
    label_smoothing: float

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"recipe.{name}={value!r}: expected a whole number of at least 1")
        for name in ("lr", "quantizer_lr", "weight_decay"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"recipe.{name}={value!r}: expected a number >= 0")
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise ValueError(f"recipe.gradient_clip={self.gradient_clip!r}: expected a positive number, or null")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"recipe.label_smoothing={self.label_smoothing!r}: expected a number from 0 to below 1")
        try:  # wrong arguments of the optimizer show now, not after a teacher has been trained
            self.make_optimizer([nn.Parameter(torch.zeros(1))], [])
        except TypeError as error:
            raise ValueError(f"recipe.optimizer: {error}") from error

    def make_optimizer(
        self,
        network: Iterable[nn.Parameter],
        quantizer: Iterable[nn.Parameter],
        decays: Mapping[nn.Parameter, float] | None = None,
    ) -> Optimizer:
        """The optimizer over both groups; a float network has only the first.

        Args:
            network: trained at `lr` with `weight_decay`.
            quantizer: trained at `quantizer_lr`.
            decays: weight decay of those quantizer parameters that have one; they form a third group.
        """
        own = decays or {}
        quantizer = list(quantizer)
        groups = [
            {
                "params": list(network),
                "lr": self.lr,
                "initial_lr": self.lr,
                "weight_decay": self.weight_decay,
            },
            *(
                {
                    "params": [p for p in quantizer if own.get(p, 0.0) == decay],
                    "lr": self.quantizer_lr,
                    "initial_lr": self.quantizer_lr,
                    "weight_decay": decay,
                }
                for decay in sorted({0.0, *own.values()})
            ),
        ]
        # Fused optimizers unscale gradients by themselves, so Lightning cannot clip theirs.
        fused = isinstance(self.optimizer, partial) and "fused" in self.optimizer.keywords
        plain = {"fused": False} if fused and self.gradient_clip is not None else {}
        return self.optimizer([group for group in groups if group["params"]], **plain)

    def set_lr(self, optimizer: Optimizer, progress: Progress) -> None:
        """Write the learning rates of the coming step into the optimizer."""
        for group in optimizer.param_groups:
            group["lr"] = self.schedule.lr(group["initial_lr"], progress)

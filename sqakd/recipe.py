"""How a network is trained: optimizer, learning rates, length. The schedule is a function, not a state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One optimizer with two parameter groups, learning rates on a cosine per epoch.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per optimizer step over all devices, divided by `accumulate`.
        accumulate: batches whose gradients are added up before a step.
        gradient_clip: largest norm of the whole gradient; None leaves it alone.
        optimizer: makes the optimizer from parameter groups (a torch class with its own arguments filled in).
        lr: initial learning rate of the network's parameters.
        quantizer_lr: initial learning rate of ranges and output scales.
        weight_decay: of the network's parameters; the quantizers' have none.
    """

    epochs: int
    batch_size: int
    accumulate: int
    gradient_clip: float | None
    optimizer: Callable[..., Optimizer]
    lr: float
    quantizer_lr: float
    weight_decay: float

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"recipe.{name}={value!r}: expected a whole number of at least 1")
        for name in ("lr", "quantizer_lr", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"recipe.{name}={getattr(self, name)!r}: expected a number >= 0")

    def make_optimizer(self, network: Iterable[nn.Parameter], quantizer: Iterable[nn.Parameter]) -> Optimizer:
        """The optimizer over both groups; a float network has only the first."""
        groups = [
            {
                "params": list(network),
                "lr": self.lr,
                "initial_lr": self.lr,
                "weight_decay": self.weight_decay,
            },
            {
                "params": list(quantizer),
                "lr": self.quantizer_lr,
                "initial_lr": self.quantizer_lr,
                "weight_decay": 0.0,
            },
        ]
        return self.optimizer([group for group in groups if group["params"]])

    def set_lr(self, optimizer: Optimizer, epoch: int) -> None:
        """Write the learning rates of one epoch (counted from 0) into the optimizer."""
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * cosine(epoch, self.epochs)


def cosine(epoch: int, epochs: int) -> float:
    """Cosine annealing from 1 to 0, (1 + cos(pi e / E)) / 2.

    Source: Loshchilov & Hutter 2017, "SGDR" (https://arxiv.org/abs/1608.03983), equation 5 without restarts.

    Example:
        >>> cosine(0, 10), round(cosine(5, 10), 6)
        (1.0, 0.5)
    """
    return (1 + math.cos(math.pi * epoch / epochs)) / 2

"""The recipe of a training: calibration, optimizer, learning rates and length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from sqakd.errors import SqakdError
from sqakd.numbers import check_not_negative, check_share, check_whole, is_number
from sqakd.training.schedule import Progress, Schedule

# Arguments of an optimizer that the recipe gives to each group of parameters.
GROUP_ARGUMENTS = {"params", "lr", "weight_decay"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The calibration's size, one optimizer, its parameter groups and their learning rates.

    Attributes:
        epochs: passes over the training images; with 0 nothing is trained.
        batch_size: images per optimizer step over all devices, divided by `accumulate`.
        calibration_batches: batches of that size whose images set the ranges, all at once. A float network has none.
        accumulate: batches whose gradients are added up before a step.
        gradient_clip: largest norm of the whole gradient; None for no limit.
        optimizer: makes the optimizer from parameter groups (a torch class with its own arguments filled in).
        schedule: learning rate of each step.
        lr: highest learning rate of the network's parameters.
        quantizer_lr: highest learning rate of ranges and output scales.
        weight_decay: of the network's parameters; those of the quantizers have none from here.
        label_smoothing: of the cross-entropy with labels, if the kd uses labels.

    Raises:
        SqakdError: if an argument is not a number in its range, or the optimizer refuses its arguments.
    """

    epochs: int
    batch_size: int
    calibration_batches: int
    accumulate: int
    gradient_clip: float | None
    optimizer: Callable[..., Optimizer]
    schedule: Schedule
    lr: float
    quantizer_lr: float
    weight_decay: float
    label_smoothing: float

    def __post_init__(self) -> None:
        check_whole("epochs", self.epochs, minimum=0)
        for name in ("batch_size", "calibration_batches", "accumulate"):
            check_whole(name, getattr(self, name))
        for name in ("lr", "quantizer_lr", "weight_decay"):
            check_not_negative(name, getattr(self, name))
        clip = self.gradient_clip
        if clip is not None and not (is_number(clip) and clip > 0):
            raise SqakdError(f"gradient_clip={clip!r}: expected a positive number, or null")
        check_share("label_smoothing", self.label_smoothing)
        own = self.optimizer.keywords if isinstance(self.optimizer, partial) else {}
        if twice := sorted(GROUP_ARGUMENTS & own.keys()):
            raise SqakdError(f"optimizer.{twice[0]}={own[twice[0]]}: expected nothing, because the recipe sets it")
        network, quantizer = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        try:  # wrong arguments of the optimizer are reported now, not after a teacher has been trained
            self.make_optimizer([network], [quantizer])
        except (TypeError, ValueError) as error:
            raise SqakdError(f"optimizer: {error}") from error

    def make_optimizer(
        self,
        network: Iterable[nn.Parameter],
        quantizer: Iterable[nn.Parameter],
        decays: Mapping[nn.Parameter, float] | None = None,
    ) -> Optimizer:
        """Return the optimizer over all groups; a float network has only the first.

        Args:
            network: parameters to train at `lr` with `weight_decay`.
            quantizer: parameters to train at `quantizer_lr`.
            decays: weight decay of those quantizer parameters that have one; each value forms one more group.
        """
        own = decays or {}
        quantizer = list(quantizer)

        def group(parameters: list[nn.Parameter], lr: float, decay: float) -> dict[str, object]:
            return {"params": parameters, "lr": lr, "initial_lr": lr, "weight_decay": decay}

        groups = [group(list(network), self.lr, self.weight_decay)]
        for decay in sorted({0.0, *own.values()}):
            groups.append(group([p for p in quantizer if own.get(p, 0.0) == decay], self.quantizer_lr, decay))
        # Fused optimizers unscale gradients themselves, so Lightning cannot clip theirs.
        fused = isinstance(self.optimizer, partial) and "fused" in self.optimizer.keywords
        plain = {"fused": False} if fused and self.gradient_clip is not None else {}
        return self.optimizer([g for g in groups if g["params"]], **plain)

    def set_lr(self, optimizer: Optimizer, progress: Progress) -> None:
        """Write the learning rates of the coming step into the optimizer."""
        for group in optimizer.param_groups:
            group["lr"] = self.schedule.lr(group["initial_lr"], progress)

r"""Exponential moving average of the student, which replaces the student in evaluation and in the saved weights.

After each optimizer step, for each real tensor w of the student (weights, ranges, scales, batch-norm statistics):

    a <- d a + (1 - d) w,    d = min(1 - 1 / (E S), (1 + n) / (10 + n))

S is the number of steps in an epoch and E the length of the memory in epochs. The second bound grows with the number n
of updates, so that the first weights, which are far from the later ones, are soon forgotten. Quantizing the average is
not the same as averaging quantized weights: a weight that jumps between two codes has an average that stays on one
side.

Source: Polyak, Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; Tarvainen, Valpola 2017, "Mean
teachers are better role models" (https://arxiv.org/abs/1703.01780), for the exponential form. The update is that of
torch.optim.swa_utils. Lightning's own callback is not used, because it copies the whole module, the frozen teacher
included.
"""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sqakd.errors import SqakdError
from sqakd.numbers import check_positive
from sqakd.quantization.layers import quantizers
from sqakd.training.task import Task
from sqakd.training.trainer import steps_per_epoch


class WeightAverage(pl.Callback):
    """Averages the student's tensors. Validation and the saved weights use the average, training does not.

    The average restarts where the bits of a layer change.

    Args:
        epochs: length of the memory: after so many, a value has 1/e of the weight it had.

    Raises:
        SqakdError: if `epochs` is not a number above 0.
    """

    def __init__(self, *, epochs: float) -> None:
        check_positive("epochs", epochs)
        self.epochs = epochs
        self.average: dict[str, Tensor] = {}
        self.bits: list[int] = []
        self.updates = self.step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "bits": self.bits, "updates": self.updates, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average, self.bits = dict(state_dict["average"]), list(state_dict["bits"])
        self.updates, self.step = state_dict["updates"], state_dict["step"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the average, unless it comes from a checkpoint."""
        assert isinstance(pl_module, Task)
        self.check_memory(steps_per_epoch(trainer))
        if not self.average:
            self._restart(pl_module)
        self.average = {name: value.to(pl_module.device) for name, value in self.average.items()}

    def check_memory(self, steps: int) -> None:
        """Refuse a memory that is not longer than one step.

        Args:
            steps: optimizer steps of an epoch.

        Raises:
            SqakdError: with the memory and the number of steps.
        """
        if self.epochs * steps <= 1:
            raise SqakdError(
                f"epochs={self.epochs}: this memory of the moving average is no longer than one of the {steps}"
                f" optimizer steps of an epoch, so it would average nothing",
                topic="ema.too_short",
                epochs=2 * math.ceil(self.epochs),
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:  # in the middle of accumulation
            return
        assert isinstance(pl_module, Task)
        self.step = trainer.global_step
        if _bits(pl_module) != self.bits:
            self._restart(pl_module)
            return
        decay = min(1 - 1 / (self.epochs * steps_per_epoch(trainer)), (1 + self.updates) / (10 + self.updates))
        current = _tensors(pl_module)
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update(list(self.average.values()), [current[name] for name in self.average], self.updates)
        self.updates += 1

    def _restart(self, task: Task) -> None:
        """Start a new average at the present weights."""
        self.average = {name: value.clone() for name, value in _tensors(task).items()}
        self.bits, self.updates = _bits(task), 0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, task: pl.LightningModule) -> None:
        """Exchange the values of the student and of the average; a second call undoes the first."""
        assert isinstance(task, Task)
        current = _tensors(task)
        for name, average in self.average.items():
            kept = average.clone()
            average.copy_(current[name])
            current[name].copy_(kept)

    @torch.no_grad()
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the average into the student, because the student is saved next.

        This also happens when a finished training is resumed only to write its record.
        """
        assert isinstance(pl_module, Task)
        current = _tensors(pl_module)
        for name, average in self.average.items():
            current[name].copy_(average)


def _tensors(task: Task) -> dict[str, Tensor]:
    """Return the student's real tensors by name, not copies; a tensor that modules share has its first name alone."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, value in task.student.state_dict(keep_vars=True).items():
        if value.is_floating_point():
            found.setdefault(id(value), (name, value.detach()))
    return dict(found.values())


def _bits(task: Task) -> list[int]:
    """Return the bits of all quantizers."""
    return [quantizer.bits for quantizer in quantizers(task.student)]

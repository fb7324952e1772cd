r"""Exponential moving average of the student, evaluated and saved in its place.

After each optimizer step, for each real tensor w of the student (weights, ranges, scales, batch-norm statistics):

    a <- d a + (1 - d) w,    d = min(1 - 1 / (E S), (1 + n) / (10 + n))

S steps are an epoch, E is the length of the memory in epochs, n counts the updates so that the first, far-off weights
are soon forgotten. Quantizing the average is not the same as averaging quantized weights: a weight that jumps between
two codes has an average that stays on one side.

Source: Polyak, Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; Tarvainen, Valpola 2017, "Mean
teachers are better role models" (https://arxiv.org/abs/1703.01780), for the exponential form. The steps are
torch.optim.swa_utils'. Lightning's own callback copies the whole module, the frozen teacher included.
"""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sqakd.numbers import is_number
from sqakd.quantization.layers import quant_layers
from sqakd.training.task import Task


class WeightAverage(pl.Callback):
    """Averages the student's tensors; validation and the saved weights are of the average, training is not.

    Where the bits of a layer change, the average starts again.

    Args:
        epochs: length of the memory: after so many, a value has 1/e of the weight it had.
    """

    def __init__(self, *, epochs: float) -> None:
        if not is_number(epochs) or not 0 < epochs < math.inf:
            raise ValueError(f"plus.ema.epochs={epochs!r}: expected a number above 0, e.g. plus.ema.epochs=1")
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
        assert isinstance(pl_module, Task)
        if self.epochs * self._steps(trainer) <= 1:
            raise ValueError(
                f"plus.ema.epochs={self.epochs} is no longer than one optimizer step of {self._steps(trainer)} in an"
                f" epoch, which averages nothing; type for instance plus.ema.epochs={2 * math.ceil(self.epochs)}"
            )
        if not self.average:
            self._restart(pl_module)
        self.average = {name: value.to(pl_module.device) for name, value in self.average.items()}

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
        decay = min(1 - 1 / (self.epochs * self._steps(trainer)), (1 + self.updates) / (10 + self.updates))
        current = _tensors(pl_module)
        step = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        step(list(self.average.values()), [current[name] for name in self.average], self.updates)
        self.updates += 1

    @staticmethod
    def _steps(trainer: pl.Trainer) -> int:
        """Optimizer steps of an epoch."""
        return math.ceil(int(trainer.num_training_batches) / trainer.accumulate_grad_batches)

    def _restart(self, task: Task) -> None:
        self.average = {name: value.clone() for name, value in _tensors(task).items()}
        self.bits, self.updates = _bits(task), 0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, task: pl.LightningModule) -> None:
        """Exchange the student's values and the average's; twice is nothing."""
        assert isinstance(task, Task)
        current = _tensors(task)
        for name, average in self.average.items():
            kept = average.clone()
            average.copy_(current[name])
            current[name].copy_(kept)

    @torch.no_grad()
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The student that leaves the run is the average; also where the run had only its record left to write."""
        assert isinstance(pl_module, Task)
        current = _tensors(pl_module)
        for name, average in self.average.items():
            current[name].copy_(average)


def _tensors(task: Task) -> dict[str, Tensor]:
    """The student's real tensors by name, not copies."""
    return {name: value for name, value in task.student.state_dict().items() if value.is_floating_point()}


def _bits(task: Task) -> list[int]:
    return [q.bits for _, layer in quant_layers(task.student) for q in (layer.weight_quantizer, layer.input_quantizer)]

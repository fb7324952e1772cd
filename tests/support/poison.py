"""A progress bar that sets one layer of a run to NaN at a chosen step, like a learning rate that is too high."""

from __future__ import annotations

import pytorch_lightning as pl
import torch

from sqakd.training.callbacks.progress_bar import ProgressBar


class Poison(ProgressBar):
    """Writes NaN into `layer` of the run whose name contains `victim`."""

    def __init__(self, *, label: str, lines: int, victim: str, layer: str, epoch: int, step: int) -> None:
        super().__init__(label=label, lines=lines)
        self.victim, self.layer, self.at = victim, layer, (epoch, step)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if self.victim in self.label and (trainer.current_epoch, batch_idx) == self.at:
            with torch.no_grad():
                pl_module.get_parameter(f"student.{self.layer}.weight").fill_(float("nan"))

"""A progress bar that ends its own process at a chosen step; the progress bar is no part of a run's identity."""

from __future__ import annotations

import os
import signal

import pytorch_lightning as pl

from sqakd.training.callbacks.progress_bar import ProgressBar


class KillAt(ProgressBar):
    def __init__(self, *, label: str, lines: int, victim: str, epoch: int, step: int, signal_name: str) -> None:
        super().__init__(label=label, lines=lines)
        self.at = (victim, epoch, step)
        self.signal = getattr(signal, signal_name)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        victim, *at = self.at
        if victim in self.label and [trainer.current_epoch, batch_idx] == at:
            os.kill(os.getpid(), self.signal)

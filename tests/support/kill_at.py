"""A progress bar that ends its own process at a chosen step.

It is a progress bar because that is not part of a run's identity: the killed and the resumed command mean the same run.
"""

from __future__ import annotations

import os
import signal

import pytorch_lightning as pl

from sqakd.training.callbacks.progress_bar import ProgressBar


class KillAt(ProgressBar):
    """Sends a signal to its own process in the run whose name contains `victim`."""

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

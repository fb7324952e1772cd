"""The record of a finished run, sent to the loggers while they are still open."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl

from sqakd.runs.record import Record
from sqakd.training.trainer import max_epochs


class Result(pl.Callback):
    """Makes the record at the end of a training that had all its epochs.

    A training that another callback ended early has no record, so that its run does not count as finished.

    Args:
        make: returns the record.
    """

    def __init__(self, make: Callable[[], Record]) -> None:
        self.make = make
        self.record: Record | None = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch < max_epochs(trainer):
            return
        record = self.record = self.make()
        for logger in trainer.loggers:
            logger.log_metrics(record.metrics(), step=trainer.global_step)

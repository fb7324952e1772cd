"""The record of a finished run, sent to the loggers while they are still open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl

from sqakd.runs.record import Record
from sqakd.training.loggers.send import send_picture
from sqakd.training.trainer import max_epochs


class Result(pl.Callback):
    """Makes the record at the end of a training that had all its epochs, and a picture for loggers that show pictures.

    A training that another callback ended early has no record, so that its run does not count as finished.

    Args:
        make: returns the record.
        write: writes what a finished run leaves behind and returns the record with what it adds. It comes before
            everything that may fail, so that no picture and no logger can lose a training.
        draw: draws the picture of the run and returns its file, None if there is nothing to draw; only the first of
            several processes calls it.
    """

    def __init__(
        self,
        make: Callable[[], Record],
        write: Callable[[Record, pl.Trainer], Record],
        draw: Callable[[Record], Path | None],
    ) -> None:
        self.make, self.write, self.draw = make, write, draw
        self.record: Record | None = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch < max_epochs(trainer):
            return
        record = self.record = self.write(self.make(), trainer)
        picture = self.draw(record) if trainer.is_global_zero else None
        for logger in trainer.loggers:
            logger.log_metrics(record.metrics(), step=trainer.global_step)
            if picture is not None:
                send_picture(logger, "picture", picture, trainer.global_step)

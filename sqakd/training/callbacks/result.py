"""The record of a finished run, sent to the loggers while they are still open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

from sqakd.runs.record import numbers


class Result(pl.Callback):
    """Makes the record at the end of the training.

    Args:
        make: returns the record, plain data.
    """

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self.make = make
        self.record: dict[str, Any] = {}

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.record = self.make()
        for logger in trainer.loggers:
            logger.log_metrics(numbers(self.record), step=trainer.global_step)

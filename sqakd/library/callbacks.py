"""The callback that keeps the metrics of each epoch in memory."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint


class Epochs(Checkpoint):
    """Collects the metrics of each epoch, one row per epoch.

    The class is a Checkpoint because Lightning calls those last, when the epoch's metrics are complete, and because
    Lightning writes checkpoint files if there is no such callback.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.validated = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validated = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning keeps the scores of the last validation, which may be those of an earlier epoch.
        metrics = {
            name: float(value)
            for name, value in sorted(trainer.callback_metrics.items())
            if self.validated or not name.startswith("val/")
        }
        self.rows.append({"epoch": float(trainer.current_epoch), **metrics})

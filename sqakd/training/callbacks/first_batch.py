"""Base of callbacks that inspect the quantized layers every few epochs: it provides images to inspect them with."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from sqakd.numbers import check_whole


class FirstBatch(Checkpoint):
    """Keeps the first validation batch of each epoch. It is a Checkpoint only because Lightning calls those last.

    Args:
        every_n_epochs: distance of the inspections.

    Raises:
        SqakdError: if `every_n_epochs` is not a whole number of at least 1.
    """

    def __init__(self, *, every_n_epochs: int) -> None:
        check_whole("every_n_epochs", every_n_epochs)
        self.every_n_epochs = every_n_epochs
        self.images: Tensor | None = None

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0:
            self.images = batch.image

    def due(self, trainer: pl.Trainer) -> bool:
        """Return whether this epoch is one of every `every_n_epochs`."""
        return (trainer.current_epoch + 1) % self.every_n_epochs == 0

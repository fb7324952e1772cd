"""What callbacks share that look at the quantized layers once per epoch: the images to look with."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor


class FirstBatch(Checkpoint):
    """Keeps the first validation batch of each epoch. A Checkpoint only because Lightning calls those last.

    Args:
        every_n_epochs: distance of the looks.
    """

    def __init__(self, *, every_n_epochs: int) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs={every_n_epochs}: expected at least 1")
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

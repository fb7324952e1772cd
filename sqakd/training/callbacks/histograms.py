"""Histograms of each quantized layer's weight and input, for loggers that can show histograms."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from torch import Tensor

from sqakd.quantization.calibrate import visit
from sqakd.quantization.layers import QuantLayer
from sqakd.training.callbacks.first_batch import FirstBatch
from sqakd.training.loggers.send import send_histogram, shows_media
from sqakd.training.task import Task

BINS = 64


class Histograms(FirstBatch):
    """Sends histograms to TensorBoard and Weights & Biases; without such a logger it does nothing.

    The inputs are those of the first validation batch.

    Args:
        every_n_epochs: distance of the snapshots.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        loggers = [logger for logger in trainer.loggers if shows_media(logger)]
        if not self.due(trainer) or not loggers or not trainer.is_global_zero or self.images is None:
            return

        def look(name: str, layer: QuantLayer, x: Tensor) -> None:
            for kind, tensor in (("weight", layer.weight), ("input", x)):
                counts, edges = histogram(tensor)
                for logger in loggers:
                    send_histogram(logger, f"histogram/{name}/{kind}", counts, edges, trainer.global_step)

        visit(pl_module.student, self.images, look, training=False)


def histogram(x: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return counts [BINS] and edges [BINS + 1] of a tensor's values."""
    return np.histogram(x.detach().float().cpu().numpy(), bins=BINS)

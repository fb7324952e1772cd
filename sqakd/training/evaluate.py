"""The scores of a student outside of a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import pytorch_lightning as pl
import torch

from sqakd.dataset.batch import Batch
from sqakd.quantization.probe import in_mode
from sqakd.training.task import Task


class ValidationData(Protocol):
    """The part of a data module that an evaluation reads."""

    def val_dataloader(self) -> Iterable[Batch]:
        """Return the validation batches."""

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Prepare a batch on its device."""


@torch.no_grad()
def evaluate(task: Task, data: ValidationData, trainer: pl.Trainer) -> dict[str, float]:
    """Return the scores on the validation images, by their names without "val/": {"top1": 0.91, ...}.

    The scores are those of the validation after an epoch, in the same precision. This takes one pass over the
    validation images. Each process measures all images. Nothing is changed.

    Args:
        task: with its networks on the training device.
        data: images of the run, not attached to a trainer yet.
        trainer: of the run; only its precision is used.
    """
    with in_mode(task, training=False), trainer.precision_plugin.val_step_context():
        for i, batch in enumerate(data.val_dataloader()):
            label = None if batch.label is None else batch.label.to(task.device)
            moved = batch._replace(image=batch.image.to(task.device), label=label)
            task.validation_step(data.on_after_batch_transfer(moved, i), i)
    return {name.removeprefix("val/"): float(value) for name, value in task.scores.take().items()}

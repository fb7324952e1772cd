"""The scores of networks outside of a training."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from sqakd.dataset.batch import Batch
from sqakd.errors import SqakdError
from sqakd.quantization.probe import in_mode
from sqakd.training.task import Task


class ValidationData(Protocol):
    """The part of a data module that an evaluation reads."""

    def val_dataloader(self) -> Iterable[Batch]:
        """Return the validation batches."""

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Prepare a batch on its device."""


@torch.no_grad()
def predictions(
    network: nn.Module, data: ValidationData, device: torch.device
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield logits [N, classes] of the validation images, and their labels [N] if they have any, batch by batch.

    They are computed in the network's own precision. Each process computes all images.

    Args:
        network: images [N, C, H, W] -> logits [N, classes]; it is not changed.
        data: images, not attached to a trainer yet.
        device: where to compute.

    Raises:
        SqakdError: after the last batch, if a logit is not finite.
    """
    judged = copy.deepcopy(network).to(device).eval()
    finite = torch.ones((), dtype=torch.bool, device=device)
    for i, batch in enumerate(data.val_dataloader()):
        moved = _moved(batch, device)
        logits = judged(data.on_after_batch_transfer(moved, i).image)
        finite &= logits.isfinite().all()
        yield logits, moved.label
    if not bool(finite):
        raise SqakdError("its logits for the validation images are NaN or infinite; expected a trained network")


def top1(network: nn.Module, data: ValidationData, device: torch.device) -> float:
    """Return the share of the labelled validation images that a network classifies correctly; see `predictions`."""
    correct, images = torch.zeros((), device=device), 0
    for logits, label in predictions(network, data, device):
        assert label is not None
        correct += (logits.argmax(dim=1) == label).sum()
        images += len(label)
    return float(correct) / images


def _moved(batch: Batch, device: torch.device) -> Batch:
    """Return a batch whose images and labels are on a device."""
    return batch._replace(image=batch.image.to(device), label=None if batch.label is None else batch.label.to(device))


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
            task.validation_step(data.on_after_batch_transfer(_moved(batch, task.device), i), i)
    return {name.removeprefix("val/"): float(value) for name, value in task.scores.take().items()}

"""Lightning's Trainer with its own files, tips and sampler switched off: a run has its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import nn

from sqakd.dataset.base import ImageDataModule
from sqakd.training.recipe import Recipe

OFF: dict[str, Any] = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "log_every_n_steps": 0,
}
# Keys of the trainer group that the task reads instead.
TASK_KEYS = ("compile", "channels_last")


def make_trainer(
    recipe: Recipe,
    how: dict[str, Any],
    *,
    callbacks: Sequence[pl.Callback],
    loggers: Sequence[Logger],
    folder: Path,
) -> pl.Trainer:
    """The trainer of one run.

    Args:
        recipe: length, accumulation and clipping.
        how: the `trainer` group: where and how to run, and any other argument of Lightning's Trainer.
        callbacks: in the order in which they run.
        loggers: views of the run.
        folder: the run's own.

    Raises:
        ValueError: for a precision that the codes do not fit in.
    """
    if str(how.get("precision")).startswith("16"):
        raise ValueError(
            f"trainer.precision={how['precision']}: half precision overflows on sums of integer codes;"
            f" type trainer.precision=bf16-mixed"
        )
    own = {key: value for key, value in how.items() if key not in TASK_KEYS}
    return pl.Trainer(
        max_epochs=recipe.epochs,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.gradient_clip,
        callbacks=list(callbacks),
        logger=list(loggers) or False,
        default_root_dir=folder,
        **OFF | own,
    )


@torch.no_grad()
def top1(network: nn.Module, data: ImageDataModule, device: torch.device) -> float:
    """Share of the validation images that a network classifies correctly; each process measures all of them.

    Args:
        network: images [N, C, H, W] -> logits [N, classes]; left as it was.
        data: labelled, not yet attached to a trainer.
        device: where to compute.
    """
    judged = copy.deepcopy(network).to(device).eval()
    correct, images = torch.zeros((), device=device), 0
    for batch in data.val_dataloader():
        assert batch.label is not None
        moved = data.on_after_batch_transfer(batch._replace(image=batch.image.to(device)), 0)
        correct += (judged(moved.image).argmax(dim=1) == batch.label.to(device)).sum()
        images += len(batch.label)
    return float(correct) / images

"""Lightning's Trainer without the files, tips and sampler that a run replaces by its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.loggers import Logger
from torch import nn

from sqakd.dataset.base import ImageDataModule
from sqakd.errors import SqakdError
from sqakd.numbers import is_whole
from sqakd.training.recipe import Recipe

OFF: dict[str, Any] = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "log_every_n_steps": 0,
}
# Arguments that end a training before its recipe does. A run would then count as finished that is not.
CUT_SHORT = ("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time")
# Keys of the trainer group that are arguments of the task, not of Lightning's Trainer.
TASK_KEYS = ("compile", "channels_last")


def make_trainer(
    recipe: Recipe,
    trainer_config: Mapping[str, Any],
    *,
    callbacks: Sequence[pl.Callback],
    loggers: Sequence[Logger],
    folder: Path,
) -> pl.Trainer:
    """Return the trainer of one run.

    Args:
        recipe: length, accumulation and clipping.
        trainer_config: the `trainer` group: devices, precision, and any other argument of Lightning's Trainer.
        callbacks: in the order in which they run.
        loggers: views of the run.
        folder: folder of the run.

    Raises:
        SqakdError: see `check_trainer_config`; or if Lightning refuses an argument.
    """
    check_trainer_config(recipe, trainer_config)
    own = {key: value for key, value in trainer_config.items() if key not in TASK_KEYS}
    try:
        return pl.Trainer(
            max_epochs=recipe.epochs,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.gradient_clip,
            callbacks=list(callbacks),
            logger=list(loggers) or False,
            default_root_dir=folder,
            **OFF | own,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise SqakdError(" ".join(str(error).split())) from error


def check_trainer_config(recipe: Recipe, trainer_config: Mapping[str, Any]) -> None:
    """Refuse arguments of the trainer that do not fit the recipe.

    Raises:
        SqakdError: if the precision is too low for sums of integer codes, or an argument would end the training early
            or omit the last validation.
    """
    if str(trainer_config.get("precision")).startswith("16"):
        raise SqakdError(
            f"precision={trainer_config['precision']}: half precision overflows on sums of integer codes; expected"
            f" bfloat16 or more",
            topic="trainer.half_precision",
        )
    if cut := [key for key in CUT_SHORT if trainer_config.get(key) is not None]:
        raise SqakdError(
            f"{cut[0]}={trainer_config[cut[0]]}: expected no length here, because the recipe has it",
            topic="trainer.length",
        )
    interval = trainer_config.get("check_val_every_n_epoch", 1)
    if not is_whole(interval) or interval < 1 or recipe.epochs % interval:
        raise SqakdError(
            f"check_val_every_n_epoch={interval}: expected a divisor of {recipe.epochs}, the number of epochs, so that"
            f" the last epoch is validated"
        )


def max_epochs(trainer: pl.Trainer) -> int:
    """Return the length of the training in epochs."""
    return trainer.max_epochs or 1


def steps_per_epoch(trainer: pl.Trainer) -> int:
    """Return the number of optimizer steps in an epoch; the last one may have fewer batches to accumulate."""
    return math.ceil(int(trainer.num_training_batches) / trainer.accumulate_grad_batches)


@torch.no_grad()
def top1(network: nn.Module, data: ImageDataModule, device: torch.device) -> float:
    """Return the share of the validation images that a network classifies correctly.

    Each process measures all images.

    Args:
        network: images [N, C, H, W] -> logits [N, classes]; it is not changed.
        data: labelled images, not attached to a trainer yet.
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

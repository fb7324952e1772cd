"""Lightning's Trainer with its own files, tips and sampler switched off: a run has its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from torch import nn

from sqakd.dataset.base import ImageDataModule
from sqakd.kd.base import Objective
from sqakd.recipe import Recipe
from sqakd.task import Task

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
    """
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


def top1(network: nn.Module, data: ImageDataModule, *, num_classes: int, recipe: Recipe, how: dict[str, Any]) -> float:
    """Share of the validation images that a network classifies correctly; the network is left as it was.

    Args:
        network: images [N, C, H, W] -> logits [N, num_classes].
        data: labelled.
        num_classes: width of the logits.
        recipe: of the run that asks; nothing is trained.
        how: the `trainer` group.
    """
    task = Task(
        student=copy.deepcopy(network),
        teacher=None,
        objective=Objective(ce=1.0, kl=0.0, temperature=1.0, label_smoothing=0.0),
        recipe=recipe,
        num_classes=num_classes,
        labelled=True,
        seed=0,
        compile=False,
        channels_last=how["channels_last"],
    )
    judge = pl.Trainer(accelerator=how["accelerator"], devices=1, logger=False, enable_checkpointing=False, **OFF)
    (scores,) = judge.validate(task, datamodule=data, verbose=False)
    return scores["val/top1"]

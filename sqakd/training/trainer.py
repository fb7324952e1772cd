"""Lightning's Trainer without the files, tips and sampler that a run replaces by its own."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.loggers import Logger

from sqakd.errors import SqakdError, shown
from sqakd.numbers import is_whole
from sqakd.training.callbacks.shared_stop import SharedStop
from sqakd.training.recipe import Recipe
from sqakd.training.sync_batch_norm import SyncBatchNorm

OFF: dict[str, Any] = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "log_every_n_steps": 0,
}
# Other precisions change the network's weights alone, not the images that it gets.
PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16", "None")
# Arguments of Lightning's Trainer that a run sets itself: the values that change nothing, and the reason why others are
# refused. A training that ends early would count as finished; scores of other validation images could not be compared.
LENGTH = "the recipe sets the length"
IMAGES = "all images are validated"
OWNED: dict[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(("max_epochs", "min_epochs", "min_steps", "max_time"), (("None",), LENGTH)),
    "max_steps": (("None", "-1"), LENGTH),
    "fast_dev_run": (("None", "False", "0"), LENGTH),
    "limit_val_batches": (("None", "1.0"), IMAGES),
    "overfit_batches": (("None", "0", "0.0"), IMAGES),
    "accumulate_grad_batches": (("None",), "recipe.accumulate sets it"),
    "gradient_clip_val": (("None",), "recipe.gradient_clip sets it"),
    "callbacks": (("None", "[]"), "a run has its own"),
    "logger": (("None",), "a run has its own"),
    "default_root_dir": (("None",), "a run has its own folder"),
    "enable_checkpointing": (("None", "True"), "a run needs its checkpoints"),
    "use_distributed_sampler": (("None", "False"), "the data set gives each device its images"),
    "val_check_interval": (("None", "1.0"), "a run is validated after each epoch"),
    "barebones": (("None", "False"), "a run needs its callbacks"),
}
# Keys of the trainer group that are arguments of the task, not of Lightning's Trainer.
TASK_KEYS = ("compile", "channels_last")


def make_trainer(
    recipe: Recipe,
    trainer_config: Mapping[str, Any],
    *,
    callbacks: Sequence[pl.Callback],
    loggers: Sequence[Logger],
    folder: Path,
    validates: bool = True,
) -> pl.Trainer:
    """Return the trainer of one run.

    Args:
        recipe: length, accumulation and clipping.
        trainer_config: the `trainer` group: devices, precision, and any other argument of Lightning's Trainer.
        callbacks: in the order in which they run.
        loggers: views of the run.
        folder: folder of the run.
        validates: whether the validation images are used.

    Raises:
        SqakdError: if Lightning refuses an argument.
    """
    return construct(
        trainer_config,
        **_of_recipe(recipe),
        callbacks=[*callbacks, SharedStop()],
        logger=list(loggers) or False,
        default_root_dir=folder,
        limit_val_batches=1.0 if validates else 0,
    )


def construct(trainer_config: Mapping[str, Any], **arguments: Any) -> pl.Trainer:
    """Construct Lightning's Trainer, for a training with the given arguments or, without any, to ask it questions.

    Raises:
        SqakdError: if the machine has fewer devices, or if Lightning refuses an argument.
    """
    devices, there = trainer_config.get("devices", 1), max(os.cpu_count() or 1, torch.cuda.device_count())
    if is_whole(devices) and devices > there:  # before Lightning makes a list of as many
        raise SqakdError(f"devices={devices}: expected at most {there}, the number of devices of this machine")
    own = {key: value for key, value in trainer_config.items() if key not in (*TASK_KEYS, *OWNED)}
    if own.get("sync_batchnorm"):
        given = own.get("plugins") or []
        own["plugins"] = [*(given if isinstance(given, list) else [given]), SyncBatchNorm()]
    try:
        return pl.Trainer(**OFF | {"logger": False} | own | arguments)
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise SqakdError(" ".join(str(error).split())) from error


def _of_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer that a recipe sets."""
    return {
        "max_epochs": recipe.epochs,
        "accumulate_grad_batches": recipe.accumulate,
        "gradient_clip_val": recipe.gradient_clip,
    }


def check_trainer_config(recipe: Recipe, trainer_config: Mapping[str, Any]) -> None:
    """Refuse arguments of the trainer that do not fit the recipe or this machine.

    Raises:
        SqakdError: if the precision is too low for sums of integer codes; if an argument would end the training early,
            omit images or the last validation, or replace what the run decides; if the machine has fewer devices; or
            if Lightning refuses an argument.
    """
    if str(trainer_config.get("precision")).startswith("16"):
        raise SqakdError(
            f"precision={trainer_config['precision']}: half precision overflows on sums of integer codes; expected"
            f" bfloat16 or more",
            topic="trainer.half_precision",
        )
    precision = trainer_config.get("precision")
    if str(precision) not in PRECISIONS:
        raise SqakdError(f"precision={shown(precision)}: expected 32-true or bf16-mixed")
    for key, (neutral, reason) in OWNED.items():
        if key in trainer_config and str(trainer_config[key]) not in neutral:
            message = f"{key}={shown(trainer_config[key])}: expected no such key, because {reason}"
            if reason is LENGTH:
                raise SqakdError(message, topic="trainer.length")
            raise SqakdError(message, topic="trainer.partial") if reason is IMAGES else SqakdError(message)
    interval = trainer_config.get("check_val_every_n_epoch", 1)
    if not is_whole(interval) or interval < 1 or recipe.epochs % interval:
        raise SqakdError(
            f"check_val_every_n_epoch={interval}: expected a divisor of {recipe.epochs}, the number of epochs of the"
            f" training, so that the last one is validated"
        )
    _check_devices(recipe, trainer_config)


def _check_devices(recipe: Recipe, trainer_config: Mapping[str, Any]) -> None:
    """Refuse more devices than there are, and whatever Lightning refuses."""
    devices = trainer_config.get("devices", 1)
    trial = construct(trainer_config, **_of_recipe(recipe))
    if isinstance(trial.accelerator, CPUAccelerator) and trial.num_devices > (os.cpu_count() or 1):
        raise SqakdError(f"devices={devices}: expected at most {os.cpu_count()}, the number of cores of this machine")
    environment = getattr(trial.strategy, "cluster_environment", None)
    if trial.num_nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise SqakdError(
            f"num_nodes={trial.num_nodes}: expected a launcher that starts a process on each node, such as srun or"
            f" torchrun (docs/cluster.md, docs/gpu.md); alone, this process would wait for the others"
        )


def max_epochs(trainer: pl.Trainer) -> int:
    """Return the length of the training in epochs; 0 if nothing is trained."""
    return 1 if trainer.max_epochs is None else trainer.max_epochs


def steps_per_epoch(trainer: pl.Trainer) -> int:
    """Return the number of optimizer steps in an epoch; the last one may have fewer batches to accumulate."""
    return math.ceil(int(trainer.num_training_batches) / trainer.accumulate_grad_batches)

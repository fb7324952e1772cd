"""The stage before the training that some feature losses have, in the same run.

This stage is a training of its own: other parameters, another loss, and a constant learning rate. It reads the images
of the data set's first epochs as the training does, and resumes from its own checkpoint to the same bits.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from sqakd.dataset.batch import Batch
from sqakd.quantization.parameters import split_parameters
from sqakd.quantization.probe import in_mode
from sqakd.randomness import stream_seed
from sqakd.training.callbacks.divergence import DivergenceError, all_finite
from sqakd.training.callbacks.progress_bar import ProgressBar
from sqakd.training.callbacks.resume import Resume
from sqakd.training.compiled_step import CompiledStep
from sqakd.training.metrics import saved_mean
from sqakd.training.task import Task
from sqakd.training.trainer import make_trainer

MOMENTUM = 0.9
SECONDS = "seconds of the stage"  # key in its checkpoint


def pretrain(
    task: Task,
    data: pl.LightningDataModule,
    trainer_config: Mapping[str, Any],
    *,
    epochs: int,
    images: Tensor,
    resume: Resume,
    callbacks: Iterable[pl.Callback],
    compilation: pl.Callback | None = None,
) -> float:
    """Train what the feature loss asks for before the training, if anything.

    Args:
        task: task whose feature loss has its parameters.
        data: training images as `Batch`es.
        trainer_config: the `trainer` group.
        epochs: of the stage; 0 omits it.
        images: a few normalised images [N, C, H, W] on the training device.
        resume: writer of this stage's own checkpoint; an interrupted stage continues from there.
        callbacks: callbacks of the run; its progress bar also shows this stage.
        compilation: decides whether this stage's step is compiled; None: it is if the task's is.

    Returns:
        The seconds of the stage, over all starts.

    Raises:
        DivergenceError: if the loss of this stage, or what it trains, is not finite.
        CheckpointError: if the checkpoint does not fit this stage.
    """
    loss = task.objective.feature_loss
    if loss is None or epochs == 0:
        return 0.0
    stage = Pretraining(task, images, epochs=epochs)
    bars = [_relabelled(callback) for callback in callbacks if isinstance(callback, ProgressBar)]
    trainer = make_trainer(
        stage.recipe,
        trainer_config,
        callbacks=[*bars, *([] if compilation is None else [compilation]), resume],
        loggers=[],
        folder=resume.file.parent,
        validates=False,
    )
    try:
        with resume.restoring():
            trainer.fit(stage, datamodule=data, ckpt_path=resume.start.file, weights_only=True)
    finally:
        stage.release()
    return stage.seconds


def _relabelled(bar: ProgressBar) -> ProgressBar:
    """Return a copy of a progress bar with a label for this stage."""
    twin = copy.copy(bar)
    twin.label = f"{bar.label} (before the training)"
    return twin


class Pretraining(pl.LightningModule):
    """Trains the parameters that a feature loss asks for and its loss depends on; all others are frozen meanwhile.

    Args:
        task: task of the run; its student, teacher and feature loss are used in place.
        images: a few normalised images [N, C, H, W], to find the parameters that the loss depends on.
        epochs: length of the stage.
    """

    step_name = "step before the training"
    computed_loss: Callable[[Tensor], Tensor]

    def __init__(self, task: Task, images: Tensor, *, epochs: int) -> None:
        super().__init__()
        loss = task.objective.feature_loss
        assert loss is not None
        self.task = task.to(images.device)
        self.feature_loss = loss
        optimizer = task.recipe.optimizer if loss.pretrain_share else partial(SGD, momentum=MOMENTUM)
        lr = task.recipe.lr if loss.pretrain_lr is None else loss.pretrain_lr
        self.recipe = replace(task.recipe, epochs=epochs, lr=lr, optimizer=optimizer)
        self.mean = saved_mean()
        self.seconds = 0.0
        self.started = 0.0
        own = set(task.student.parameters())
        asked = loss.pretrain_parameters(*split_parameters(task.student))
        self.trains_student = any(parameter in own for parameter in asked)
        self.required = {parameter: parameter.requires_grad for parameter in task.parameters()}
        self._freeze_but(asked)
        self.trained = self._reached(asked, images)
        self._freeze_but(self.trained)
        self.__dict__["computed_loss"] = self.loss
        if task.compiles_at_once:
            self.compile_losses(size=None)

    def _freeze_but(self, parameters: Sequence[nn.Parameter]) -> None:
        """Freeze all parameters of the task except the given ones."""
        self.task.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_()

    def _reached(self, parameters: Sequence[nn.Parameter], images: Tensor) -> list[nn.Parameter]:
        """Return the parameters that the loss depends on; a network's last layers may have no part in it."""
        # Evaluation mode, so that no batch-norm statistics move.
        with in_mode(self.task, training=False), torch.enable_grad():
            gradients = torch.autograd.grad(self.loss(images), parameters, allow_unused=True)
        return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]

    def release(self) -> None:
        """Restore which parameters can be trained."""
        for parameter, required in self.required.items():
            parameter.requires_grad_(required)

    def compile_losses(self, *, size: int | None, on_failure: Callable[[str], None] | None = None) -> CompiledStep:
        """Compute the loss of batches of one size by compiled code from now on; see `CompiledStep`."""
        ranges = {id(parameter) for parameter in split_parameters(self.task.student)[1]}
        # Where no range is trained, torch would keep the masks of all clipped values.
        keeps = any(id(parameter) in ranges for parameter in self.trained)
        step = CompiledStep(self.loss, size=size, on_failure=on_failure, keeps_masks=keeps)
        self.__dict__["computed_loss"] = step
        return step

    def loss(self, images: Tensor) -> Tensor:
        """Return the loss of a batch of normalised images [N, C, H, W].

        `computed_loss` is this method, or its compiled form.
        """
        assert self.task.features is not None
        student, teacher = self.task.features
        if self.trains_student:
            self.task.student(images)
        self.task.teacher_logits(images)
        features = student.take() if self.trains_student else []
        with torch.autocast(images.device.type, enabled=False):
            return self.feature_loss.pretrain_loss(features, teacher.take())

    def configure_optimizers(self) -> Optimizer:
        return self.recipe.make_optimizer(self.trained, [])

    def on_train_start(self) -> None:
        self.started = time.perf_counter()

    def on_train_end(self) -> None:
        self.seconds += time.perf_counter() - self.started

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(stream_seed(self.task.seed, self.current_epoch, self.global_rank, "before the training"))
        self.mean.reset()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.computed_loss(batch.image.to(memory_format=self.task.format))
        self.mean.update(loss.detach(), weight=len(batch.image))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Do nothing: this stage has no score, and its trainer runs no validation."""

    def on_train_epoch_end(self) -> None:
        mean = self.mean.compute()
        # Checked here because the epoch's checkpoint is written next. No loss shows what the last step did.
        if not math.isfinite(mean) or not all_finite(self.trained):
            found = f"is {float(mean)}" if not math.isfinite(mean) else "left weights that are not finite"
            raise DivergenceError(
                f"the loss before the training {found} in epoch {self.current_epoch}",
                topic="divergence.pretraining",
                lr=self.recipe.lr / 2,
            )
        self.log("train/loss", mean, rank_zero_only=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.task.on_save_checkpoint(checkpoint)
        checkpoint[SECONDS] = self.seconds + time.perf_counter() - self.started

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.task.on_load_checkpoint(checkpoint)
        self.seconds = checkpoint.get(SECONDS, 0.0)  # earlier versions did not keep it

"""The stage before the training that some feature losses ask for, in the same run.

A training of its own: other parameters, another loss, SGD at a constant learning rate. It sees the images of the data
set's first epochs as the training does, and continues from its own checkpoint to the same bits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.batch import Batch
from sqakd.quantization.parameters import split_parameters
from sqakd.randomness import stream_seed
from sqakd.training.callbacks.divergence import DivergenceError
from sqakd.training.callbacks.progress import Progress
from sqakd.training.callbacks.resume import Resume
from sqakd.training.task import Mean, Task
from sqakd.training.trainer import make_trainer

MOMENTUM = 0.9


def pretrain(
    task: Task,
    data: ImageDataModule,
    how: Mapping[str, Any],
    *,
    images: Tensor,
    file: Path,
    callbacks: Iterable[pl.Callback],
) -> None:
    """Do what the feature loss wants done before the training, if anything.

    Args:
        task: with its feature loss built.
        data: of the run.
        how: the `trainer` group.
        images: a few normalised images [N, C, H, W] on the training device.
        file: the checkpoint of this stage; what is done is continued from there.
        callbacks: of the run; its progress bar is shown here too.
    """
    loss = task.objective.feature_loss
    if loss is None or loss.pretrain_epochs == 0:
        return
    stage = Pretraining(task, images)
    trainer = make_trainer(
        stage.recipe,
        {**how, "limit_val_batches": 0},
        callbacks=[*(_relabelled(c) for c in callbacks if isinstance(c, Progress)), Resume(file)],
        loggers=[],
        folder=file.parent,
    )
    trainer.fit(stage, datamodule=data, ckpt_path=str(file) if file.exists() else None, weights_only=True)
    stage.release()


def _relabelled(progress: Progress) -> Progress:
    twin = copy.copy(progress)
    twin.label = f"{progress.label} (before the training)"
    return twin


class Pretraining(pl.LightningModule):
    """Trains what a feature loss asks for, as far as its loss reaches; everything else is frozen meanwhile.

    Args:
        task: the run's own; its student, teacher and feature loss are used in place.
        images: a few normalised images [N, C, H, W], to see how far the loss reaches.
    """

    def __init__(self, task: Task, images: Tensor) -> None:
        super().__init__()
        loss = task.objective.feature_loss
        assert loss is not None
        self.task = task.to(images.device)
        self.feature_loss = loss
        self.recipe = replace(
            task.recipe, epochs=loss.pretrain_epochs, lr=loss.pretrain_lr, optimizer=partial(SGD, momentum=MOMENTUM)
        )
        self.mean = Mean()
        self.mean.persistent(True)
        own = set(task.student.parameters())
        asked = loss.pretrain_parameters(*split_parameters(task.student))
        self.trains_student = any(parameter in own for parameter in asked)
        self.required = {parameter: parameter.requires_grad for parameter in task.parameters()}
        self._freeze_but(asked)
        self.trained = self._reached(asked, images)
        self._freeze_but(self.trained)

    def _freeze_but(self, parameters: Sequence[nn.Parameter]) -> None:
        self.task.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_()

    def _reached(self, parameters: Sequence[nn.Parameter], images: Tensor) -> list[nn.Parameter]:
        """Those of the parameters that the loss depends on; the last layers of a network may have no part in it."""
        was_training = self.task.training
        self.task.eval()  # nothing that is kept moves
        with torch.enable_grad():
            gradients = torch.autograd.grad(self.loss(images), parameters, allow_unused=True)
        self.task.train(was_training)
        return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]

    def release(self) -> None:
        """Leave every parameter as trainable as it was found."""
        for parameter, required in self.required.items():
            parameter.requires_grad_(required)

    def loss(self, images: Tensor) -> Tensor:
        """Loss of a batch of normalised images [N, C, H, W]."""
        assert self.task.features is not None
        student, teacher = self.task.features
        if self.trains_student:
            self.task.student(images)
        self.task.teacher_logits(images)
        seen = student.take() if self.trains_student else []
        with torch.autocast(images.device.type, enabled=False):
            return self.feature_loss.pretrain_loss(seen, teacher.take())

    def configure_optimizers(self) -> Optimizer:
        return self.recipe.make_optimizer(self.trained, [])

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(stream_seed(self.task.seed, self.current_epoch, self.global_rank, "before the training"))
        self.mean.reset()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch.image.to(memory_format=self.task.format))
        self.mean.update(loss.detach(), weight=len(batch.image))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Never called: what this stage trains has nothing to be judged by."""

    def on_train_epoch_end(self) -> None:
        mean = self.mean.compute()
        if not math.isfinite(mean):  # before the epoch's checkpoint is written
            raise DivergenceError(
                f"the loss before the training is {float(mean)} in epoch {self.current_epoch}; a lower learning rate"
                f" may help, e.g. kd.feature_loss.pretrain_lr={self.recipe.lr / 2:g} name=ANOTHER_NAME"
            )
        self.log("train/loss", mean, rank_zero_only=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.task.on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.task.on_load_checkpoint(checkpoint)

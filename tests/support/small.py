"""Small parts for tests: components chosen by overrides, random images of 8x8 pixels, and a tiny network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import command
import pytorch_lightning as pl
import torch
from hydra import initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn

from sqakd.app.compose import compose_spec
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.digits import Digits
from sqakd.kd.objective import Objective
from sqakd.models.resnet import CifarResNet
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import Scheme, quantize
from sqakd.runs.length import length_of
from sqakd.runs.saved_state import find_start
from sqakd.training import pretrain as stage
from sqakd.training.callbacks.resume import Resume
from sqakd.training.task import Task
from sqakd.training.trainer import make_trainer

CLASSES = 10
SHAPE = (3, 8, 8)
TRAIN, VAL = 24, 20


@cache
def config(*overrides: str) -> DictConfig:
    """Return the configuration composed from overrides; it is cached, so do not change it."""
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        return OmegaConf.create(compose_spec(list(overrides)).config)


@cache
def scheme(*overrides: str) -> Scheme:
    made: Scheme = instantiate(config(*overrides).quantizer)
    return made


class RandomImages(Digits):  # takes the arguments of conf/dataset/digits.yaml
    """Random images with random labels; batches of 8 for training, and of 8, 8 and 4 for validation."""

    def load(self) -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (TRAIN + VAL, *SHAPE), dtype=torch.uint8, generator=generator)
        labels = torch.randint(CLASSES, (TRAIN + VAL,), generator=generator)
        self.train_images, self.val_images = images[:TRAIN], images[TRAIN:]
        self.train_labels, self.val_labels = labels[:TRAIN], labels[TRAIN:]
        self.class_names = [str(i) for i in range(CLASSES)]


class UnlabelledImages(RandomImages):
    """The same images without labels."""

    def load(self) -> None:
        super().load()
        self.train_labels = self.val_labels = None


def images(kind: type[ImageDataModule] = RandomImages) -> ImageDataModule:
    target = f"dataset._target_={kind.__module__}.{kind.__name__}"
    sizes = ("dataset.eval_batch_size=8", "recipe.batch_size=8")
    data: ImageDataModule = instantiate(config("dataset=digits", target, *sizes).dataset)
    data.setup()
    return data


def batch(n: int, seed: int = 0) -> Tensor:
    """Return normalised random images [n, 3, 8, 8]."""
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def network(seed: int = 0) -> CifarResNet:
    """Return a ResNet-8, which has six convolutions between the first and the last layer."""
    torch.manual_seed(seed)
    return CifarResNet(blocks=1, num_classes=CLASSES)


def quantized(*overrides: str, seed: int = 0) -> CifarResNet:
    """Return the same network, quantized and calibrated."""
    model = network(seed)
    quantize(model, scheme(*overrides))
    calibrate(model, batch(8, seed))
    return model


def objective(**changes: Any) -> Objective:
    """Return SQAKD's objective with some arguments changed."""
    arguments: dict[str, Any] = {"ce": 0.0, "kl": 1.0, "feature": 0.0, "temperature": 4.0, "standardize": False}
    return Objective(**arguments | {"label_smoothing": 0.0, "feature_loss": None} | changes)


def make_task(
    student: nn.Module, teacher: nn.Module | None, *overrides: str, labelled: bool = True, num_classes: int = CLASSES
) -> Task:
    """Return a task of two networks, with recipe and kd chosen by overrides."""
    parts = config(*overrides)
    return Task(
        student=student,
        teacher=teacher,
        objective=instantiate(parts.kd),
        recipe=instantiate(parts.recipe),
        num_classes=num_classes,
        labelled=labelled,
        seed=parts.seed,
        compile=False,
        channels_last=False,
        feature_layers=parts.model.feature_layers,
        teacher_feature_layers=parts.teacher.feature_layers,
    )


def make_staged_task(*overrides: str, labelled: bool = True) -> Task:
    """Return a task of a quantized student and another float network, with a feature loss for their shapes."""
    task = make_task(quantized(), network(seed=1), *overrides, labelled=labelled)
    task.build_feature_loss(batch(2), training_images=TRAIN, labels=None)
    return task


def pretrain(task: Task, folder: Path) -> float:
    """Train the stage before the training on the CPU; its checkpoint is pretrain.ckpt in `folder`."""
    file = folder / "pretrain.ckpt"
    trainer_config: dict[str, Any] = {"accelerator": "cpu", "devices": 1}
    resume = Resume(file, start=find_start(file, run=""))
    data = images(RandomImages if task.labelled else UnlabelledImages)
    loss = task.objective.feature_loss
    config = {"recipe": {"epochs": task.recipe.epochs}, "kd": {"feature_loss": vars(loss)}}
    epochs = length_of(config).stage
    return stage.pretrain(task, data, trainer_config, epochs=epochs, images=batch(2), resume=resume, callbacks=[])


def make_small_trainer(
    task: Task, folder: Path, callbacks: Sequence[pl.Callback] = (), loggers: Sequence[Logger] = ()
) -> pl.Trainer:
    """Return a trainer on the CPU with the length of the task's recipe."""
    trainer_config: dict[str, Any] = {"accelerator": "cpu", "devices": 1}
    trainer_config["enable_checkpointing"] = any(isinstance(callback, Checkpoint) for callback in callbacks)
    return make_trainer(task.recipe, trainer_config, callbacks=callbacks, loggers=loggers, folder=folder)


def fit(
    task: Task, folder: Path, *, callbacks: Sequence[pl.Callback] = (), loggers: Sequence[Logger] = ()
) -> pl.Trainer:
    """Train for the epochs of the task's recipe, with Lightning's own loop."""
    trainer = make_small_trainer(task, folder, callbacks, loggers)
    trainer.fit(task, datamodule=images(RandomImages if task.labelled else UnlabelledImages))
    return trainer

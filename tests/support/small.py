"""What tests train: parts chosen as in a sentence, random images of 8x8 pixels, networks that take milliseconds."""

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
from sqakd.training.task import Task
from sqakd.training.trainer import make_trainer

CLASSES = 10
SHAPE = (3, 8, 8)
TRAIN, VAL = 24, 20


@cache
def config(*words: str) -> DictConfig:
    """The composed configuration of a sentence; not to be changed."""
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        return OmegaConf.create(compose_spec(list(words)).config)


@cache
def scheme(*words: str) -> Scheme:
    made: Scheme = instantiate(config(*words).quantizer)
    return made


class RandomImages(Digits):  # takes the arguments of conf/dataset/digits.yaml
    """Noise with labels; batches of 8 for training and of 8, 8 and 4 for validation."""

    def load(self) -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (TRAIN + VAL, *SHAPE), dtype=torch.uint8, generator=generator)
        labels = torch.randint(CLASSES, (TRAIN + VAL,), generator=generator)
        self.train_images, self.val_images = images[:TRAIN], images[TRAIN:]
        self.train_labels, self.val_labels = labels[:TRAIN], labels[TRAIN:]
        self.class_names = [str(i) for i in range(CLASSES)]


class UnlabelledImages(RandomImages):
    def load(self) -> None:
        super().load()
        self.train_labels = self.val_labels = None


def images(kind: type[ImageDataModule] = RandomImages) -> ImageDataModule:
    words = (f"dataset._target_={kind.__module__}.{kind.__name__}", "dataset.eval_batch_size=8", "recipe.batch_size=8")
    data: ImageDataModule = instantiate(config("dataset=digits", *words).dataset)
    data.setup()
    return data


def batch(n: int, seed: int = 0) -> Tensor:
    """Normalised images [n, 3, 8, 8]."""
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def network(seed: int = 0) -> CifarResNet:
    """ResNet-8, six convolutions between the first and the last layer."""
    torch.manual_seed(seed)
    return CifarResNet(blocks=1, num_classes=CLASSES)


def quantized(*words: str, seed: int = 0) -> CifarResNet:
    """The same network, quantized and calibrated."""
    model = network(seed)
    quantize(model, scheme(*words))
    calibrate(model, batch(8, seed))
    return model


def objective(**changes: Any) -> Objective:
    """SQAKD's, except for the arguments given."""
    arguments: dict[str, Any] = {"ce": 0.0, "kl": 1.0, "feature": 0.0, "temperature": 4.0, "standardize": False}
    return Objective(**arguments | {"label_smoothing": 0.0, "feature_loss": None} | changes)


def make_task(
    student: nn.Module, teacher: nn.Module | None, *words: str, labelled: bool = True, num_classes: int = CLASSES
) -> Task:
    parts = config(*words)
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


def make_small_trainer(
    task: Task, folder: Path, callbacks: Sequence[pl.Callback] = (), loggers: Sequence[Logger] = ()
) -> pl.Trainer:
    how: dict[str, Any] = {"accelerator": "cpu", "devices": 1}
    how["enable_checkpointing"] = any(isinstance(callback, Checkpoint) for callback in callbacks)
    return make_trainer(task.recipe, how, callbacks=callbacks, loggers=loggers, folder=folder)


def fit(
    task: Task, folder: Path, *, callbacks: Sequence[pl.Callback] = (), loggers: Sequence[Logger] = ()
) -> pl.Trainer:
    """Train as long as the task's recipe says, with Lightning's own loop."""
    trainer = make_small_trainer(task, folder, callbacks, loggers)
    trainer.fit(task, datamodule=images(RandomImages if task.labelled else UnlabelledImages))
    return trainer

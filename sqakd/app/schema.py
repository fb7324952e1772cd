"""Types of the values in conf/train.yaml that no constructor gets, and the check of a whole configuration.

All other values are arguments of constructors, whose annotations are their types (`sqakd.app.signatures`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from torch import nn

from sqakd.allocation.budget import Budget
from sqakd.app.modes import check_folder
from sqakd.app.signatures import check_arguments, check_not_nan, check_values
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.transforms.augment import Augment
from sqakd.kd.objective import Objective
from sqakd.numbers import check_whole
from sqakd.quantization.convert import Scheme
from sqakd.runs.spec import HELPER, Spec
from sqakd.training.recipe import Recipe


class Paths(TypedDict):
    """The group `paths`."""

    runs: str
    data: str
    cache: str


class ModelNames(TypedDict, total=False):
    """Keys of networks from other packages, which `net` refers to."""

    arch: str
    weights: bool | str | None
    options: Mapping[str, Any] | None


class Network(ModelNames):
    """The keys that student and teacher have in common."""

    name: str
    feature_layers: list[str]
    net: nn.Module


class Model(Network):
    """The group `model`."""

    first: list[str] | None


class Teacher(Model):
    """The group `model` for the teacher, and how its float run is found or trained."""

    checkpoint: str | None
    seed: int
    recipe: Recipe


class TrainerKeys(TypedDict):
    """Keys of the group `trainer` that the application reads; the others are arguments of Lightning's Trainer."""

    compile: bool | Literal["auto"]
    channels_last: bool
    devices: int | str | list[int]
    num_nodes: int


class Parts(TypedDict, total=False):
    """Groups that a configuration may lack."""

    plus: Mapping[str, Augment | pl.Callback]


class Train(Parts):
    """conf/train.yaml."""

    bits: int | Literal["auto"]
    w_bits: int | Literal["auto"]
    a_bits: int | Literal["auto"]
    budget: Budget
    layer_bits: Mapping[str, int] | None
    layer_w_bits: Mapping[str, int] | None
    layer_a_bits: Mapping[str, int] | None
    residual_bits: int | None
    seed: int
    plan: bool | Literal["measure"]
    cell: str
    name: str
    dataset: ImageDataModule
    model: Model
    teacher: Teacher
    quantizer: Scheme | None
    kd: Objective
    recipe: Recipe
    trainer: Mapping[str, Any]
    callbacks: Mapping[str, pl.Callback | None] | None
    logger: Mapping[str, Logger | None] | None
    paths: Paths


def check_config(spec: Spec) -> None:
    """Refuse values of a wrong type anywhere in a configuration, also those that are needed only later.

    Raises:
        SqakdError: naming the key, the value and the expected type.
    """
    config = spec.config
    check_not_nan(config)
    check_values({key: value for key, value in config.items() if not key.startswith(HELPER)}, Train)
    trainer = config["trainer"]
    own = TrainerKeys.__annotations__.keys()
    check_values({key: trainer[key] for key in own if key in trainer}, TrainerKeys, "trainer")
    check_arguments({key: value for key, value in trainer.items() if key not in own}, pl.Trainer, "trainer")
    check_folder(spec)
    check_whole("seed", spec.seed, minimum=0)
    check_whole("teacher.seed", config["teacher"]["seed"], minimum=0)

"""Training steps of every quantizer with every distillation loss, on a tiny network."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, product
from typing import Any

import command
import pytest
import small
import torch
from torch import Tensor, nn

from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.training.task import Task


def options(group: str) -> list[str]:
    """Return the names of all options of a configuration group."""
    return sorted(file.stem for file in (command.ROOT / "conf" / group).glob("*.yaml"))


QUANTIZERS, KDS = options("quantizer"), options("kd")
NEEDS_QUANTIZER = ("squat",)
# Their steps run the code of other options with other numbers.
LIKE_OTHERS = {"cktf_released", "fsp_released", "none_matched", "sqakd_released"}
BATCH = 6
LAYERS = ("first", "one", "two", "last:input")


def cases() -> list[Any]:
    """Return parameters (quantizer, kd) for all pairs; all are slow but some in which each option occurs."""
    own = [kd for kd in KDS if kd not in LIKE_OTHERS]
    quick = set(zip(cycle(QUANTIZERS), own, strict=False))
    found = []
    for quantizer, kd in product(QUANTIZERS, KDS):
        if quantizer != "none" or kd not in NEEDS_QUANTIZER:
            marks = () if (quantizer, kd) in quick else pytest.mark.slow
            found.append(pytest.param(quantizer, kd, id=f"{quantizer}-{kd}", marks=marks))
    return found


class Tiny(nn.Module):
    """A network with two stages of one convolution each, which are quantized, between first and last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.one = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Linear(8, small.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, CLASSES] of images [N, 3, 8, 8]."""
        y: Tensor = self.last(self.two(self.one(self.first(x).relu())).mean((2, 3)))
        return y


def tiny(seed: int) -> Tiny:
    """Return the float network with random weights."""
    torch.manual_seed(seed)
    return Tiny()


def make_case(quantizer: str, kd: str, *overrides: str, network: Callable[[int], nn.Module] = tiny) -> Task:
    """Return a task on the CPU whose student is calibrated and whose feature loss has its parameters."""
    layers = [f"{owner}.feature_layers=[{','.join(LAYERS)}]" for owner in ("model", "teacher")]
    overrides = (f"kd={kd}", "recipe.lr=0.01", *layers, *overrides)
    student = network(0)
    if quantizer != "none":
        overrides = (f"quantizer={quantizer}", *overrides)
        quantize(student, small.scheme(f"quantizer={quantizer}"))
        calibrate(student, small.batch(8))
    task = small.make_task(student.train(), network(1), *overrides)
    torch.manual_seed(0)
    task.build_feature_loss(small.batch(2), training_images=small.TRAIN, labels=labels_of(small.TRAIN))
    return task


def images_of(seed: int) -> Tensor:
    """Return normalised images [BATCH, 3, 8, 8]."""
    return small.batch(BATCH, seed)


def labels_of(count: int) -> Tensor:
    """Return labels of four classes."""
    return torch.arange(count) % 4


def index_of(seed: int) -> Tensor:
    """Return positions in the training set."""
    return torch.arange(BATCH) + seed


def losses_of(task: Task, images: Tensor, label: Tensor, index: Tensor) -> dict[str, Tensor]:
    """Return the losses of one batch, with the random numbers of the feature loss drawn on its device."""
    draws: dict[str, Any] = task.objective.draw(index, torch.Generator(index.device).manual_seed(0))
    return task.eager_losses(images, label, index, draws)

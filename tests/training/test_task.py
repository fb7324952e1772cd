"""Losses and scores of the task against a calculation in numpy, with and without labels and teacher."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from torch import Tensor, nn

from sqakd.advice import explain
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.batch import Batch
from sqakd.errors import SqakdError
from sqakd.training.task import Task

Array = NDArray[np.float64]
PIXELS = math.prod(small.SHAPE)


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, small.CLASSES))


def task(*overrides: str, teacher: bool = True, **facts: Any) -> Task:
    constant = ("recipe.epochs=1", "recipe.lr=0")  # all batches are judged with the same weights
    return small.make_task(linear(1), linear(2) if teacher else None, *constant, *overrides, **facts)


def log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def kl(student: Array, teacher: Array, temperature: float) -> float:
    log_s, log_t = log_softmax(student / temperature), log_softmax(teacher / temperature)
    return float(temperature**2 * (np.exp(log_t) * (log_t - log_s)).sum() / len(student))


def ce(student: Array, label: Array) -> float:
    return float(-log_softmax(student)[np.arange(len(label)), label.astype(int)].mean())


def batches(data: ImageDataModule, *, training: bool) -> Iterator[Batch]:
    loader = data.train_dataloader() if training else data.val_dataloader()
    return (data.on_after_batch_transfer(batch, 0) for batch in loader)


def logits(model: nn.Module, batches: list[Batch]) -> Array:
    with torch.no_grad():
        return np.concatenate([model(batch.image).double().numpy() for batch in batches])


def labels(batches: list[Batch]) -> Array:
    return np.concatenate([batch.label.numpy() for batch in batches if batch.label is not None])


def test_scores_equal_the_definition(tmp_path: Path) -> None:
    """Images of batches of 8, 8 and 4 have the same weight."""
    judged, data = task("kd.temperature=3"), small.images()
    (scores,) = small.make_small_trainer(judged, tmp_path).validate(judged, datamodule=data, verbose=False)
    seen = list(batches(data, training=False))
    assert [len(batch.image) for batch in seen] == [8, 8, 4]
    assert judged.teacher is not None
    student, teacher, label = logits(judged.student, seen), logits(judged.teacher, seen), labels(seen)
    five = np.argsort(-student, axis=1)[:, :5]
    expected = {
        "val/top1": np.mean(student.argmax(axis=1) == label),
        "val/top5": np.mean([wanted in row for wanted, row in zip(label, five, strict=True)]),
        "val/agreement": np.mean(student.argmax(axis=1) == teacher.argmax(axis=1)),
        "val/kl": kl(student, teacher, 3.0),
    }
    assert 0 < expected["val/top5"] < 1
    assert scores == pytest.approx(expected, rel=1e-5)


def test_means_and_scores_are_reset_for_each_training(tmp_path: Path) -> None:
    """A task that was evaluated with other weights before reports the same as a new task."""
    used, fresh = task("kd=kd"), task("kd=kd")
    small.fit(used, tmp_path)
    for weights in (used.student.parameters(), fresh.student.parameters()):
        for parameter in weights:
            parameter.data.mul_(-2)
    again, once = (small.fit(judged, tmp_path).callback_metrics for judged in (used, fresh))
    assert again == once
    assert {"train/ce", "val/top1", "val/kl"} <= once.keys()


@pytest.mark.parametrize(
    "overrides", [["kd=sqakd"], ["kd=kd"], ["kd=none"], ["kd=kd", "kd.ce=0.3", "kd.kl=2"]], ids=str
)
def test_training_means_equal_the_definition(overrides: list[str], tmp_path: Path) -> None:
    trained, data = task(*overrides, "recipe.batch_size=9"), small.images()
    data.batch_size = 9  # the last batch has 6 images
    trainer = small.make_small_trainer(trained, tmp_path)
    trainer.fit(trained, datamodule=data)
    seen = list(batches(data, training=True))
    assert [len(batch.image) for batch in seen] == [9, 9, 6]
    assert trained.teacher is not None
    student, teacher, label = logits(trained.student, seen), logits(trained.teacher, seen), labels(seen)
    objective = trained.objective
    parts = {
        **({"ce": ce(student, label)} if objective.needs_labels else {}),
        **({"kl": kl(student, teacher, objective.temperature)} if objective.needs_teacher else {}),
    }
    weights = {"ce": objective.ce, "kl": objective.kl}
    expected = {"loss": sum(weights[name] * value for name, value in parts.items()), **parts}
    metrics = {
        k.removeprefix("train/"): float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train/")
    }
    assert metrics.keys() == {*expected, "lr"}
    assert metrics == pytest.approx({**expected, "lr": 0}, rel=1e-5)


@pytest.mark.parametrize(("objective", "parts"), [("sqakd", {"kl"}), ("kd", {"ce", "kl"}), ("none", {"ce"})])
def test_only_loss_parts_with_a_weight_are_computed(objective: str, parts: set[str]) -> None:
    label = torch.arange(4)
    losses = task(f"kd={objective}").losses(small.batch(4), label if "ce" in parts else None)
    assert losses.keys() == {"loss", *parts}
    assert losses["loss"].requires_grad


def test_teacher_does_not_run_if_no_loss_part_needs_it() -> None:
    runs: list[Tensor] = []
    alone = task("kd=none")
    assert alone.teacher is not None
    alone.teacher.register_forward_pre_hook(lambda _, args: runs.append(args[0]))
    alone.losses(small.batch(4), torch.arange(4))
    assert runs == []


@pytest.mark.parametrize(
    ("teacher", "labelled", "scores"),
    [
        (True, True, {"top1", "top5", "agreement", "kl"}),
        (False, True, {"top1", "top5"}),
        (True, False, {"agreement", "kl"}),
    ],
)
def test_scores_depend_on_labels_and_teacher(teacher: bool, labelled: bool, scores: set[str], tmp_path: Path) -> None:
    trained = task("kd=sqakd" if teacher else "kd=none", teacher=teacher, labelled=labelled)
    metrics = small.fit(trained, tmp_path).callback_metrics
    assert {name.removeprefix("val/") for name in metrics if name.startswith("val/")} == scores
    assert all(bool(value.isfinite()) for value in metrics.values())


def test_top5_becomes_top3_with_three_classes() -> None:
    few = task(num_classes=3)
    assert list(few.scores) == ["top1", "top3", "agreement", "val_kl"]


@pytest.mark.parametrize("objective", ["kd", "none"])
def test_missing_labels_are_refused(objective: str) -> None:
    with pytest.raises(SqakdError, match="this kd reads labels and the data set has none") as error:
        task(f"kd={objective}", labelled=False)
    assert "kd=sqakd" in explain(error.value)


@pytest.mark.parametrize("objective", ["kd", "sqakd"])
def test_missing_teacher_is_refused(objective: str) -> None:
    with pytest.raises(SqakdError, match="this kd needs a teacher") as error:
        task(f"kd={objective}", teacher=False)
    assert "teacher.checkpoint=FILE" in explain(error.value)


def test_every_run_of_a_sweep_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a higher limit, torch runs the ninth different network of a process uncompiled, with only a warning."""
    graphs: list[int] = []

    def backend(graph: Any, _: Any, **options: Any) -> Any:
        graphs.append(run)
        return graph.forward

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile(function, backend=backend, **options))
    for run in range(10):
        parts = small.config("kd=none")
        task = Task(
            student=nn.Sequential(nn.Flatten(), nn.Linear(192, 10), *[nn.ReLU() for _ in range(run)]),
            teacher=None,
            objective=small.objective(ce=1.0, kl=0.0),
            recipe=instantiate(parts.recipe),
            num_classes=10,
            labelled=True,
            seed=0,
            compile=True,
            channels_last=False,
        )
        task.losses(small.batch(2), torch.arange(2))
    assert sorted(set(graphs)) == list(range(10))

"""The contract of add-ons, tested for every file in conf/plus; a new file is covered automatically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import command
import pytest
import pytorch_lightning as pl
import small
import torch
from hydra.utils import instantiate
from torch import Tensor

from sqakd.training.callbacks.history import History
from sqakd.training.callbacks.resume import Resume
from sqakd.training.evaluate import top1

NAMES = sorted(file.stem for file in (command.ROOT / "conf" / "plus").glob("*.yaml"))
# Each add-on alone, and compatible ones together.
GROUPS = [[name] for name in NAMES] + [["bn", "dampen", "ema", "progressive"]]
EPOCHS = 4


class Stop(Exception):  # noqa: N818  # not an error
    """Simulates the end of a process within a process."""


class StopAt(pl.Callback):
    def __init__(self, epoch: int, step: int) -> None:
        self.at = epoch, step

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.at == (trainer.current_epoch, batch_idx):
            raise Stop


class StopAfter(pl.Callback):
    """Ends the process after all epochs, before the record is written."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        raise Stop


def parts(names: list[str]) -> list[Any]:
    node = small.config(f"plus=[{','.join(names)}]").get("plus")
    return [instantiate(node[name]) for name in names]


def run(names: list[str], folder: Path, stop: pl.Callback | None = None, **changes: int) -> tuple[Any, History]:
    """Train with the callbacks of a run; return the task and its history."""
    folder.mkdir(exist_ok=True)
    overrides = ["recipe.batch_size=8", f"recipe.epochs={EPOCHS}", "recipe.lr=0.01"]
    overrides += [f"recipe.{name}={value}" for name, value in changes.items()]
    task = small.make_task(small.quantized("bits=1"), small.network(seed=1), *overrides)
    data, plus = small.images(), parts(names)
    data.extend({name: part for name, part in zip(names, plus, strict=True) if not isinstance(part, pl.Callback)})
    last, history = folder / "last.ckpt", History(folder / "metrics.csv")
    own = [part for part in plus if isinstance(part, pl.Callback)]
    callbacks = [*([stop] if stop else []), *own, history, Resume(last)]
    trainer = small.make_small_trainer(task, folder, callbacks)
    trainer.fit(task, datamodule=data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    return task, history


def rows(history: History) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in history.rows]


def student(task: Any) -> dict[str, Tensor]:
    state: dict[str, Tensor] = task.student.state_dict()
    return state


def test_shipped_add_ons_are_found() -> None:
    assert {"cutmix", "trivial", "ema", "bn", "dampen", "progressive", "two_step"} <= set(NAMES)


# Alone they are slow tests: trained together they resume the same states.
ALONE_TOO_SLOW = {"bn", "dampen", "ema", "progressive"}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(group, marks=pytest.mark.slow if {*group} <= ALONE_TOO_SLOW and len(group) == 1 else ())
        for group in GROUPS
    ],
    ids="+".join,
)
def test_resumed_training_ends_in_the_same_bits(names: list[str], tmp_path: Path) -> None:
    expected, whole = run(names, tmp_path / "whole")
    stops = [StopAt(1, 1), StopAt(2, 0), StopAt(3, 2), StopAfter()]
    for number, stop in enumerate(stops):
        folder = tmp_path / str(number)
        with pytest.raises(Stop):
            run(names, folder, stop)
        assert (folder / "last.ckpt").exists()
        task, history = run(names, folder)
        assert command.same_bits(student(task), student(expected)), number
        assert rows(history) == rows(whole), number


@pytest.mark.parametrize("names", GROUPS, ids="+".join)
def test_final_student_is_the_one_that_was_evaluated(names: list[str], tmp_path: Path) -> None:
    task, history = run(names, tmp_path)
    data = small.images()
    assert top1(task.student, data, torch.device("cpu")) == pytest.approx(history.rows[-1]["val/top1"])
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()]
    images = torch.cat([batch.image for batch in batches])
    with torch.no_grad():
        logits, teacher = task.student.eval()(images), task.teacher(images)
    agreement = (logits.argmax(1) == teacher.argmax(1)).float().mean()
    assert float(agreement) == pytest.approx(history.rows[-1]["val/agreement"])
    kl = task.objective(logits, teacher, None)["kl"]
    assert float(kl) == pytest.approx(history.rows[-1]["val/kl"], rel=1e-5)


@pytest.mark.parametrize("names", GROUPS, ids="+".join)
def test_add_on_changes_the_training(names: list[str], tmp_path: Path) -> None:
    (with_it, _), (without, _) = run(names, tmp_path / "with"), run([], tmp_path / "without")
    assert not command.same_bits(student(with_it), student(without))


@pytest.mark.parametrize("names", GROUPS, ids="+".join)
def test_add_on_works_with_accumulated_gradients(names: list[str], tmp_path: Path) -> None:
    task, history = run(names, tmp_path, accumulate=2)
    assert len(history.rows) == EPOCHS
    assert all(bool(value.isfinite().all()) for value in student(task).values())

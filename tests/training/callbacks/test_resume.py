"""A checkpoint whose parts do not fit the training is named in one line; other errors stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import small
import torch

from sqakd.advice import explain
from sqakd.runs.checkpoint import CheckpointError
from sqakd.runs.saved_state import find_start
from sqakd.runs.seal import sealed
from sqakd.training.callbacks.resume import Resume


def fit(last: Path, epochs: int, *callbacks: pl.Callback) -> None:
    """Train for some epochs, from the last checkpoint if there is one."""
    resume = Resume(last, run="a seed 0", start=find_start(last, run="a seed 0"))
    task = small.make_task(small.network(), None, "quantizer=none", f"recipe.epochs={epochs}", "recipe.batch_size=8")
    trainer = small.make_small_trainer(task, last.parent, [*callbacks, resume])
    with resume.restoring():
        trainer.fit(task, datamodule=small.images(), ckpt_path=resume.start.file, weights_only=True)


@pytest.fixture
def last(tmp_path: Path) -> Path:
    fit(tmp_path / "last.ckpt", 1)
    return tmp_path / "last.ckpt"


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["state_dict"].pop("student.linear.bias"),
        lambda content: content["optimizer_states"][0]["param_groups"].clear(),
        lambda content: content["loops"].clear(),
        lambda content: content.update(rng=torch.zeros(3)),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(change: Callable[[dict[str, Any]], object], last: Path) -> None:
    content = torch.load(last, weights_only=True)
    change(content)
    last.write_bytes(sealed(content))
    with pytest.raises(CheckpointError) as caught:
        fit(last, 2)
    text = explain(caught.value)
    assert text.startswith(f"{last} does not hold the state of this run (")
    assert text.endswith(f"delete {last.parent}/last*.ckpt, and the same command trains from the beginning")
    assert "\n" not in text


class Mistake(pl.Callback):
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        raise KeyError("mistake")


def test_a_mistake_in_the_training_stays_as_it_is(last: Path) -> None:
    with pytest.raises(KeyError, match="mistake"):
        fit(last, 2, Mistake())


def test_a_checkpoint_has_the_name_of_its_run(last: Path) -> None:
    assert torch.load(last, weights_only=True)["run"] == "a seed 0"
    with pytest.raises(CheckpointError, match="is the checkpoint of another run, a seed 0"):
        find_start(last, run="b seed 0")

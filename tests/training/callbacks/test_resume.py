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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Train for one epoch and return the checkpoint."""
    file = tmp_path_factory.mktemp("run") / "last.ckpt"
    fit(file, 1)
    return file.read_bytes()


@pytest.fixture
def last(whole: bytes, tmp_path: Path) -> Path:
    (tmp_path / "last.ckpt").write_bytes(whole)
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


class Fails(pl.Callback):
    """Raises an error when the resumed training is set up, or when it restores its state, or in its first step."""

    def __init__(self, error: Exception, hook: str) -> None:
        self.error, self.hook = error, hook

    def state_dict(self) -> dict[str, Any]:
        return {"some": 1}

    def _at(self, hook: str) -> None:
        if hook == self.hook:
            raise self.error

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._at("setup")

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._at("on_load_checkpoint")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._at("on_fit_start")

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        self._at("on_train_batch_start")


MACHINE = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    torch.distributed.DistNetworkError("The server socket has failed to listen: EADDRINUSE"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    RuntimeError("CUDA error: out of memory"),
    MemoryError(),
]


@pytest.mark.parametrize("hook", ["setup", "on_load_checkpoint", "on_fit_start"])
@pytest.mark.parametrize("error", MACHINE, ids=["gpu", "port", "cpu", "driver", "python"])
def test_an_error_of_the_machine_is_not_blamed_on_the_checkpoint(error: Exception, hook: str, last: Path) -> None:
    before = last.read_bytes()
    with pytest.raises(type(error)) as caught:
        fit(last, 2, Fails(error, hook))
    assert caught.value is error
    assert last.read_bytes() == before


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_train_batch_start"])
@pytest.mark.parametrize("error", [KeyError("mistake"), RuntimeError("mistake")])
def test_a_mistake_outside_of_the_restoring_stays_as_it_is(error: Exception, hook: str, last: Path) -> None:
    with pytest.raises(type(error)) as caught:
        fit(last, 2, Fails(error, hook))
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyError("lr"), RuntimeError("size mismatch"), AttributeError("x")])
def test_a_state_that_a_callback_refuses_is_named(error: Exception, last: Path) -> None:
    with pytest.raises(CheckpointError, match="does not hold the state of this run"):
        fit(last, 2, Fails(error, "on_load_checkpoint"))


def test_a_checkpoint_has_the_name_of_its_run(last: Path) -> None:
    assert torch.load(last, weights_only=True)["run"] == "a seed 0"
    with pytest.raises(CheckpointError, match="is the checkpoint of another run, a seed 0"):
        find_start(last, run="b seed 0")

"""SIGTERM to some or all of several processes: they stop together, and none waits for another one for ever."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import ranks
import small
import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import distributed

from sqakd.runs.saved_state import find_start
from sqakd.training.callbacks import shared_stop
from sqakd.training.callbacks.resume import Resume
from sqakd.training.trainer import make_trainer

EPOCHS, INTERVAL = 3, 2
Place = tuple[int, int | str]  # epoch, and the batch or the hook
# Where each rank receives the signal; in an epoch of three batches the ranks ask each other after the second one.
CASES: dict[str, dict[int, Place]] = {
    "only the second, early in an epoch": {1: (1, 0)},
    "only the first, late in an epoch": {0: (1, 2)},
    "both, at different steps": {0: (1, 1), 1: (0, 2)},
    "in the validation": {0: (1, "on_validation_start"), 1: (1, "on_validation_batch_end")},
}
EXPECTED = {
    "only the second, early in an epoch": (4, "the state after epoch 1/3 is saved", 3),
    "only the first, late in an epoch": (6, "", 6),
    "both, at different steps": (3, "", 3),
    "in the validation": (6, "", 6),
}


class Signals(pl.Callback):
    """Sends SIGTERM to its own process, once."""

    def __init__(self, place: Place | None) -> None:
        self.place = place

    def _at(self, place: Place) -> None:
        if place == self.place:
            self.place = None
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._at((trainer.current_epoch, batch_idx))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._at((trainer.current_epoch, "on_validation_start"))

    def on_validation_batch_end(self, trainer: pl.Trainer, *arguments: Any, **others: Any) -> None:
        self._at((trainer.current_epoch, "on_validation_batch_end"))


def train(folder: Path, place: Place | None) -> tuple[int, str]:
    """Train, from the last checkpoint if there is one; return the last step and what the stop says."""
    file = folder / "last.ckpt"
    resume = Resume(file, start=find_start(file, run=""))
    task = small.make_task(small.network(), None, "quantizer=none", f"recipe.epochs={EPOCHS}", "recipe.batch_size=8")
    options = ranks.trainer_config(distributed.get_world_size())
    trainer = make_trainer(task.recipe, options, callbacks=[Signals(place), resume], loggers=[], folder=folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_stop, "INTERVAL", INTERVAL)
        try:
            trainer.fit(task, datamodule=small.images(), ckpt_path=resume.start.file, weights_only=True)
        except SIGTERMException as error:
            return trainer.global_step, str(error)
    return trainer.global_step, "finished"


def stop_each(folder: Path, recorder: ranks.Collectives) -> dict[str, Any]:
    """Return, for each case, where the training stopped, the step of the checkpoint, and where the resumed one ends."""
    rank = distributed.get_rank()
    found: dict[str, Any] = {}
    for name, places in CASES.items():
        own = folder.parent / name  # the first process writes the checkpoint, and both read it
        stopped = train(own, places.get(rank))
        distributed.barrier()
        saved = torch.load(own / "last.ckpt", weights_only=True)["global_step"]
        distributed.barrier()
        found[name] = (stopped, saved, train(own, None))
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return ranks.on_ranks(2, tmp_path_factory.mktemp("stops"), stop_each)


@pytest.mark.parametrize("case", CASES)
def test_processes_stop_together_and_are_resumed_from_the_last_whole_epoch(
    two: list[dict[str, Any]], case: str
) -> None:
    step, text, saved = EXPECTED[case]
    for rank in two:
        assert rank[case] == ((step, text), saved, (9, "finished"))


def test_lightning_still_has_the_methods_that_are_replaced() -> None:
    """Under other names, replacing them would have no effect, and Lightning's own would act."""
    assert callable(getattr(_SignalConnector, shared_stop.HANDLER))
    assert callable(getattr(_TrainingEpochLoop, shared_stop.BROADCAST))

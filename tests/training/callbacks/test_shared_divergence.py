"""A loss, or a score, that is not finite in one of several processes: all of them stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import ranks
import small
from torch import distributed

from sqakd.training.callbacks.divergence import Divergence, DivergenceError
from sqakd.training.trainer import make_trainer

CASES = {
    "loss": (
        "the loss of another process is not finite in epoch 0, step 1; that process names the layer",
        "the loss is nan in epoch 0, step 1: the images themselves are not finite",
    ),
    "score": (
        "after epoch 0; val/kl is nan",
        "after epoch 0; another process found a score or a weight that is not finite, and names it",
    ),
}


class Break(pl.Callback):
    """Breaks an image of the second process, or the score that only the first one has."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.fault == "loss" and trainer.global_rank == batch_idx == 1:
            batch.image[0] = float("nan")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.fault == "score" and trainer.global_rank == 0:
            trainer.callback_metrics["val/kl"].fill_(float("nan"))


def errors(folder: Path, recorder: ranks.Collectives) -> dict[str, str]:
    """Return the error of this process for each fault."""
    found = {}
    for fault in CASES:
        task = small.make_task(small.quantized(), small.network(seed=1), "kd=sqakd", "recipe.batch_size=8")
        trainer = make_trainer(
            task.recipe,
            ranks.trainer_config(distributed.get_world_size()),
            callbacks=[Break(fault), Divergence(keeps_checkpoint=False)],
            loggers=[],
            folder=folder,
        )
        with pytest.raises(DivergenceError) as caught:
            trainer.fit(task, datamodule=small.images())
        found[fault] = str(caught.value)
        distributed.barrier()
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    return ranks.on_ranks(2, tmp_path_factory.mktemp("faults"), errors)


@pytest.mark.parametrize("fault", CASES)
def test_all_processes_stop_and_the_one_with_the_fault_names_it(two: list[dict[str, str]], fault: str) -> None:
    assert tuple(rank[fault] for rank in two) == CASES[fault]

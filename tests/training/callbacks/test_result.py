"""The end of a training: the results are written before anything that may fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import small
from made_runs import Made, made_record

from sqakd.runs.record import Record
from sqakd.training.callbacks.result import Result

RECORD = made_record(Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0))


def test_a_picture_that_fails_loses_no_result(tmp_path: Path) -> None:
    written: list[Record] = []

    def write(record: Record, trainer: pl.Trainer) -> Record:
        written.append(record)
        return record

    def draw(record: Record) -> Path:
        raise RuntimeError("cannot draw")

    result = Result(make=lambda: RECORD, write=write, draw=draw)
    task = small.make_task(small.network(), None, "quantizer=none", "recipe.epochs=1")
    with pytest.raises(RuntimeError, match="cannot draw"):
        small.fit(task, tmp_path, callbacks=[result])
    assert written == [RECORD]


def test_a_training_that_was_cut_short_writes_nothing(tmp_path: Path) -> None:
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.should_stop = True

    def fail(*_: object) -> Record:
        raise AssertionError("not a result")

    result = Result(make=lambda: RECORD, write=fail, draw=lambda _: None)
    task = small.make_task(small.network(), None, "quantizer=none", "recipe.epochs=3")
    small.fit(task, tmp_path, callbacks=[Stop(), result])
    assert result.record is None

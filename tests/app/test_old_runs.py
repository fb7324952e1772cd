"""Runs of an older version: finished ones are found finished, and an interrupted one is resumed.

tests/old_runs/version1 holds three small runs made before the code was moved into rooms: a float run, a finished EWGS
student, and an LSQ student that SIGTERM stopped in its second epoch. Their configurations name classes by paths that no
longer exist.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import command
import pytest

from sqakd.runs.folder import RunFolder, find_runs
from sqakd.runs.record import read_record

OLD = command.ROOT / "tests" / "old_runs" / "version1"
OVERRIDES = [
    "dataset=digits16",
    "dataset.limit=128",
    "model.net.blocks=1",
    "recipe.epochs=2",
    "teacher.recipe.epochs=2",
    "trainer.accelerator=cpu",
]
# Older runs with an estimate of the curvature made it on batches of 32 images; now it is made on the training batch.
EWGS = ["quantizer=ewgs", "callbacks.hessian_scaling.batch_size=32"]
TEACHER, FINISHED, INTERRUPTED = (
    f"digits16-resnet20-{cell}" for cell in ("none-w32a32-none", "ewgs-w2a2-sqakd", "lsq-w2a2-sqakd")
)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "runs"))


def test_the_old_configurations_name_classes_that_are_gone() -> None:
    for folder in find_runs(OLD):
        assert "_target_: sqakd.recipe.Recipe" in folder.config.read_text(), folder.path
        assert "choices" not in folder.read_config()


def test_an_old_finished_run_is_found_finished(runs: Path) -> None:
    before = {file: file.read_bytes() for file in runs.rglob("*") if file.is_file()}
    done = command.train(*OVERRIDES, *EWGS, runs=runs)
    assert done.returncode == 0, done.stderr
    assert f"done before: {FINISHED} seed 0" in done.stdout
    assert {file: file.read_bytes() for file in before} == before


def test_a_finished_run_loses_the_temporary_files_of_a_killed_process(runs: Path) -> None:
    """A kill while the picture is drawn comes after the record, so no later training cleans up."""
    left = runs / FINISHED / "seed0" / ".picture.png.0123abcd.part"
    left.touch()
    assert command.train(*OVERRIDES, *EWGS, runs=runs).returncode == 0
    assert not left.exists()


def test_an_old_finished_run_is_refused_with_another_value(runs: Path) -> None:
    done = command.train(*OVERRIDES, *EWGS, "recipe.lr=0.01", runs=runs)
    assert done.returncode == 1
    assert "recipe.lr: 0.001 -> 0.01. Its files stay as they are" in done.stderr


def test_an_old_estimate_of_the_curvature_is_another_one(runs: Path) -> None:
    done = command.train(*OVERRIDES, "quantizer=ewgs", runs=runs)
    assert done.returncode == 1
    assert "callbacks.hessian_scaling.batch_size: 32 -> 64. Its files stay as they are" in done.stderr


def test_an_old_interrupted_run_is_resumed(runs: Path) -> None:
    folder = RunFolder.of(runs, INTERRUPTED, 0)
    assert not folder.finished
    first_epoch = folder.metrics.read_text().splitlines()[1]
    done = command.train(*OVERRIDES, "quantizer=lsq", runs=runs)
    assert done.returncode == 0, done.stderr
    assert f"done before: {TEACHER} seed 0" in done.stdout, "the old teacher is not trained again"
    assert read_record(folder.record).epochs == 2
    rows = folder.metrics.read_text().splitlines()
    assert (len(rows), rows[1]) == (3, first_epoch)


@pytest.mark.slow
def test_an_old_finished_run_is_exported(runs: Path) -> None:
    """Its configuration names classes by their old import paths, which are translated when it is read."""
    run = RunFolder.of(runs, FINISHED, 0)
    done = command.script("export.py", f"run={run.path}", "benchmark.rounds=0", folder=runs.parent)
    assert done.returncode == 0, done.stderr
    assert "agrees with the trained network on 100.00% of 128 validation images" in done.stdout
    assert (run.export("exact") / "model.onnx").is_file()

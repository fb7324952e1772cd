"""Interrupted runs: the same command continues them to the same weights, bit for bit."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import command
import pytest

from sqakd.runs.record import read_record

OVERRIDES = [*command.SMALL, "dataset=digits16", "recipe.epochs=3", "callbacks.hessian_scaling.update_every=1"]
STUDENT, TEACHER = "digits16-resnet20-ewgs-w2a2-sqakd", "digits16-resnet20-none-w32a32-none"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("uninterrupted") / "runs"
    done = command.train(*OVERRIDES, runs=runs)
    assert done.returncode == 0, done.stderr
    return runs


@pytest.mark.parametrize(
    ("victim", "epoch", "step", "signal_name"),
    [
        pytest.param(TEACHER, 1, 7, "SIGKILL", marks=pytest.mark.slow),
        pytest.param(STUDENT, 0, 3, "SIGKILL", marks=pytest.mark.slow),
        (STUDENT, 1, 11, "SIGKILL"),
        pytest.param(STUDENT, 2, 22, "SIGKILL", marks=pytest.mark.slow),
        pytest.param(STUDENT, 1, 9, "SIGTERM", marks=pytest.mark.slow),
        pytest.param(STUDENT, 1, 22, "SIGTERM", marks=pytest.mark.slow),
        pytest.param(TEACHER, 0, 5, "SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_resumed_run_ends_in_the_same_weights(
    victim: str, epoch: int, step: int, signal_name: str, uninterrupted: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    stopped = command.train(*OVERRIDES, *command.kill_at(victim, epoch, step, signal_name), runs=runs)
    assert stopped.returncode == (-signal.SIGKILL if signal_name == "SIGKILL" else 143), stopped.stderr
    assert not (runs / STUDENT / "seed0" / "record.json").exists()
    if signal_name == "SIGTERM":
        assert "the same command continues" in stopped.stderr
        assert (runs / victim / "seed0" / "checkpoints" / "last.ckpt").exists()

    resumed = command.train(*OVERRIDES, runs=runs)
    assert resumed.returncode == 0, resumed.stderr
    measured = "after calibration, before training: top-1" in resumed.stdout
    assert measured == (victim == TEACHER or epoch == 0), "it is not measured again after the first checkpoint"
    records = [read_record(folder / STUDENT / "seed0" / "record.json") for folder in (uninterrupted, runs)]
    for score in ("top1_before_training", "agreement_before_training"):
        whole, continued = (getattr(record, score) for record in records)
        assert whole == continued is not None
    for name in (TEACHER, STUDENT):
        there, here = uninterrupted / name / "seed0", runs / name / "seed0"
        assert command.same_bits(command.weights(there), command.weights(here)), name
        assert command.metrics(there) == command.metrics(here)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(uninterrupted: Path, tmp_path: Path) -> None:
    """One flipped bit in the last checkpoint is seen, and the end is the same."""
    runs = tmp_path / "runs"
    shutil.copytree(uninterrupted / TEACHER, runs / TEACHER)
    stopped = command.train(*OVERRIDES, *command.kill_at(STUDENT, 2, 5, "SIGKILL"), runs=runs)
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    folder = runs / STUDENT / "seed0"
    last = folder / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 16
    last.write_bytes(content)

    resumed = command.train(*OVERRIDES, runs=runs)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{last} is damaged: its checksum differs from its content; the run continues from" in resumed.stdout
    there = uninterrupted / STUDENT / "seed0"
    assert command.same_bits(command.weights(there), command.weights(folder))
    assert command.metrics(there) == command.metrics(folder)
    assert (there / "quantizers.csv").read_bytes() == (folder / "quantizers.csv").read_bytes()
    assert [file.name for file in last.parent.iterdir()] == ["last.ckpt"], "the last but one is no longer needed"


def test_a_finished_run_is_skipped_and_a_changed_one_refused(uninterrupted: Path) -> None:
    record = uninterrupted / STUDENT / "seed0" / "record.json"
    before = record.read_bytes(), record.stat().st_mtime_ns
    again = command.train(*OVERRIDES, runs=uninterrupted)
    assert again.returncode == 0
    assert "done before" in again.stdout
    other = command.train(*OVERRIDES, "recipe.lr=0.01", runs=uninterrupted)
    assert other.returncode == 1
    assert "recipe.lr: 0.001 -> 0.01" in other.stderr
    assert "name=ANOTHER_NAME" in other.stderr
    assert "Traceback" not in other.stderr
    assert (record.read_bytes(), record.stat().st_mtime_ns) == before

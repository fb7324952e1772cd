"""Real launchers with jobs that only pretend (sweep_app.py): failures, killed processes, and the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import command
import pytest

APP = [sys.executable, str(command.ROOT / "tests" / "support" / "sweep_app.py")]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(command.ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def sweep(folder: Path, launcher: str, seeds: str, *words: str) -> subprocess.CompletedProcess[str]:
    line = [*APP, str(folder), f"hydra/launcher={launcher}", f"seed={seeds}", *words, "-m"]
    return subprocess.run(line, capture_output=True, text=True, timeout=600, env=ENVIRONMENT, check=False)


def tries(folder: Path) -> dict[int, int]:
    """How often each seed was tried."""
    files = folder.glob("*/seed*/tried")
    return {int(file.parent.name.removeprefix("seed")): len(file.read_text().splitlines()) for file in files}


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_failures_do_not_stop_a_sweep_and_only_what_is_missing_is_done_again(tmp_path: Path, launcher: str) -> None:
    first = sweep(tmp_path, launcher, "10,0,11")
    assert first.returncode == 1
    assert "3 runs in " in first.stdout
    assert ": 1 trained, 2 failed\n" in first.stdout
    ending = first.stdout[first.stdout.index("3 runs in ") :]
    assert "seed10: wrong word\n        log: " in ending
    assert "seed11: RuntimeError: a mistake\n        log: " in ending
    assert first.stderr.splitlines()[-1] == "2 of 3 runs failed"
    assert "Traceback" not in first.stdout + first.stderr
    log = next(tmp_path.glob(".sweeps/*/*seed11.log")).read_text()
    assert "this is seed 11" in log
    assert "a mistake\nin two lines" in log

    if launcher == "basic":  # the same for all
        return
    second = sweep(tmp_path, launcher, "10,0,11,1")
    assert second.returncode == 1
    assert ": 1 trained, 1 done before, 2 failed\n" in second.stdout
    assert tries(tmp_path) == {0: 1, 1: 1, 10: 2, 11: 2}


def test_a_killed_process_is_replaced_and_one_that_is_always_killed_is_given_up(tmp_path: Path) -> None:
    """13 takes the process of 12 with it; in the end it runs alone, and only it has failed."""
    result = sweep(tmp_path, "joblib", "13,12,1", "hydra.launcher.n_jobs=2")
    assert result.returncode == 1
    assert ": 2 trained, 1 failed\n" in result.stdout
    assert "seed13: its process was killed 3 times" in result.stdout
    assert tries(tmp_path)[13] == 3


def test_ray_starts_a_killed_process_again_and_tells_failures(tmp_path: Path) -> None:
    result = sweep(tmp_path, "ray", "12,10")
    assert result.returncode == 1
    assert ": 1 trained, 1 failed\n" in result.stdout
    assert "seed10: wrong word\n        log: " in result.stdout
    assert tries(tmp_path) == {10: 1, 12: 2}


def test_a_slurm_job_that_vanishes_is_told_and_the_others_are_waited_for(tmp_path: Path) -> None:
    """The first of them vanishes, so that the launcher gives up before the others have ended."""
    result = sweep(tmp_path, "submitit_local", "13,0,10")
    assert result.returncode == 1
    assert ": 1 trained, 2 failed\n" in result.stdout
    assert "seed13: its process was killed" in result.stdout
    assert "seed10: wrong word\n        log: " in result.stdout


@pytest.mark.parametrize("end", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_when_the_sweep_is_killed_its_processes_save_and_stop(tmp_path: Path, end: signal.Signals) -> None:
    line = [*APP, str(tmp_path), "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,14", "-m"]
    parent = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    wait_for(lambda: set(tries(tmp_path)) == {0, 14})
    parent.send_signal(end)
    said, _ = parent.communicate(timeout=60)
    assert parent.returncode == -end
    assert (b"the same command continues" in said) == (end == signal.SIGTERM)
    wait_for(lambda: bool(list(tmp_path.glob("*/seed14/saved"))))
    states = [json.loads(file.read_text()) for file in sorted(tmp_path.glob(".sweeps/*/[01].json"))]
    assert [state["state"] for state in states] == ["done", "failed"]
    assert "stopped by SIGTERM" in states[1]["reason"]
    if end == signal.SIGTERM:
        return
    again = sweep(tmp_path, "joblib", "0,14")
    assert again.returncode == 0
    assert ": 1 trained, 1 done before\n" in again.stdout


def wait_for(condition: object, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    assert callable(condition)
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def test_one_at_a_time_needs_no_other_process(tmp_path: Path) -> None:
    result = sweep(tmp_path, "joblib", "15", "hydra.launcher.n_jobs=1")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_launcher_that_is_not_installed_says_what_to_type(tmp_path: Path) -> None:
    result = sweep(tmp_path, "ray", "0", "hydra.launcher.inner=hydra_plugins.not_there.Launcher")
    assert result.returncode == 1
    assert "type pip install -e '.[ray]'" in result.stdout + result.stderr

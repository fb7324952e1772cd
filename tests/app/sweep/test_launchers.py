"""Sweeps by real launchers, with jobs that fail, are killed or are interrupted (sweep_app.py) instead of trainings.

The start of a process is slow, so one pair of joblib sweeps serves several tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import command
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from sqakd.app import resolvers

APP = [sys.executable, str(command.ROOT / "tests" / "support" / "sweep_app.py")]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(command.ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def sweep(folder: Path, seeds: str, *overrides: str) -> CompletedProcess[str]:
    arguments = [*APP, str(folder), f"seed={seeds}", *overrides, "-m"]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=600, env=ENVIRONMENT, check=False)


def tries(folder: Path) -> dict[int, int]:
    """Return how often each seed was tried."""
    files = folder.glob("*/seed*/tried")
    return {int(file.parent.name.removeprefix("seed")): len(file.read_text().splitlines()) for file in files}


def wait_for(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.1)


def end_sweep_early(folder: Path, end: signal.Signals) -> tuple[list[dict[str, Any]], str]:
    """Start a joblib sweep, end it by a signal, and return its jobs' states and its output."""
    arguments = [*APP, str(folder), *JOBLIB, "seed=0,10,14", "-m"]
    parent = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT, text=True)
    wait_for(lambda: set(tries(folder)) == {0, 10, 14})
    parent.send_signal(end)
    output, _ = parent.communicate(timeout=60)
    assert parent.returncode == -end
    wait_for(lambda: bool(list(folder.glob("*/seed14/saved"))))
    return [json.loads(file.read_text()) for file in sorted(folder.glob(".sweeps/*/[012].json"))], output


class JoblibSweeps(NamedTuple):
    """A sweep that was killed, and the next sweep in the same folder."""

    folder: Path
    killed_jobs: list[dict[str, Any]]
    second: CompletedProcess[str]


@pytest.fixture(scope="module")
def joblib_sweeps(tmp_path_factory: pytest.TempPathFactory) -> JoblibSweeps:
    folder = tmp_path_factory.mktemp("joblib")
    jobs, _ = end_sweep_early(folder, signal.SIGKILL)
    return JoblibSweeps(folder, jobs, sweep(folder, "0,10,14,11,12,13", *JOBLIB))


def assert_saved_and_stopped(jobs: list[dict[str, Any]]) -> None:
    assert [job["state"] for job in jobs] == ["done", "failed", "failed"]
    assert jobs[1]["reason"] == "wrong value"
    assert "stopped by SIGTERM" in jobs[2]["reason"]


def assert_failures_are_reported(result: CompletedProcess[str], folder: Path) -> None:
    assert result.returncode == 1
    report = result.stdout[result.stdout.index(" runs in ") :]
    assert "seed10: wrong value\n        log: " in report
    assert "seed11: RuntimeError: a mistake\n        log: " in report
    assert "Traceback" not in result.stdout + result.stderr
    log = next(folder.glob(".sweeps/*/*seed11.log")).read_text()
    assert "this is seed 11" in log
    assert "a mistake\nin two lines" in log


def test_processes_of_a_killed_sweep_save_and_stop(joblib_sweeps: JoblibSweeps) -> None:
    assert_saved_and_stopped(joblib_sweeps.killed_jobs)


def test_a_job_has_the_epochs_of_its_training(joblib_sweeps: JoblibSweeps) -> None:
    resolvers.register()
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        epochs = compose("train").recipe.epochs
    assert {job["epochs"] for job in joblib_sweeps.killed_jobs} == {epochs}


def test_jobs_share_processes_and_so_their_imports(joblib_sweeps: JoblibSweeps) -> None:
    files = list(joblib_sweeps.folder.glob("*/seed*/tried"))
    first_sweep = [file for file in files if file.parent.name in ("seed0", "seed10", "seed14")]
    assert len(first_sweep) == 3
    assert len({file.read_text().splitlines()[0] for file in first_sweep}) <= 2


@pytest.mark.slow
def test_processes_of_a_terminated_sweep_save_and_stop(tmp_path: Path) -> None:
    jobs, output = end_sweep_early(tmp_path, signal.SIGTERM)
    assert_saved_and_stopped(jobs)
    assert "the same command continues" in output


def test_failures_in_other_processes_do_not_stop_a_sweep(joblib_sweeps: JoblibSweeps) -> None:
    folder, _, second = joblib_sweeps
    assert_failures_are_reported(second, folder)
    assert second.stderr.splitlines()[-1] == "3 of 6 runs failed"


def test_next_sweep_runs_only_what_is_missing(joblib_sweeps: JoblibSweeps) -> None:
    folder, _, second = joblib_sweeps
    assert ": 2 trained, 1 done before, 3 failed\n" in second.stdout
    counts = tries(folder)
    assert {seed: counts[seed] for seed in (0, 10, 11, 14)} == {0: 1, 10: 2, 11: 1, 14: 2}


def test_killed_process_is_replaced_until_its_job_was_killed_three_times(joblib_sweeps: JoblibSweeps) -> None:
    """Job 13 also ends the process of 12. At the end 13 runs alone, and only 13 has failed."""
    folder, _, second = joblib_sweeps
    assert "seed13: its process was killed 3 times" in second.stdout
    assert "seed12: its process" not in second.stdout
    # The end of another process may end this job's process before the job itself begins, which counts as well.
    assert tries(folder)[13] in (2, 3)


def test_failures_in_this_process_do_not_stop_a_sweep(tmp_path: Path) -> None:
    """With n_jobs=1 joblib starts no process, so a job must not take this process for an orphan and end it."""
    result = sweep(tmp_path, "10,0,11", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    assert_failures_are_reported(result, tmp_path)
    assert "3 runs in " in result.stdout
    assert ": 1 trained, 2 failed\n" in result.stdout
    assert result.stderr.splitlines()[-1] == "2 of 3 runs failed"


@pytest.mark.slow
def test_ray_replaces_a_killed_process_and_reports_failures(tmp_path: Path) -> None:
    result = sweep(tmp_path, "12,10", "hydra/launcher=ray")
    assert result.returncode == 1
    assert ": 1 trained, 1 failed\n" in result.stdout
    assert "seed10: wrong value\n        log: " in result.stdout
    assert tries(tmp_path) == {10: 1, 12: 2}


@pytest.mark.slow
def test_vanished_submitit_job_is_reported_and_the_others_are_awaited(tmp_path: Path) -> None:
    """The first job vanishes. Submitit's launcher would then not wait for the others."""
    result = sweep(tmp_path, "13,0,10", "hydra/launcher=submitit_local")
    assert result.returncode == 1
    assert ": 1 trained, 2 failed\n" in result.stdout
    assert "seed13: its process was killed" in result.stdout
    assert "seed10: wrong value\n        log: " in result.stdout


def test_missing_launcher_says_what_to_install() -> None:
    overrides = ["hydra/launcher=ray", "hydra.launcher.inner=hydra_plugins.not_there.Launcher"]
    resolvers.register()
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides, return_hydra_config=True)
        with pytest.raises(SystemExit, match=r"not_there.*; install it with: pip install -e '\.\[ray\]'"):
            instantiate(cfg.hydra.launcher)

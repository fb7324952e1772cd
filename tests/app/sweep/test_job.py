"""One job of a sweep: its state, its log, its failure; no launcher, no training."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sqakd.app.errors import RunFailed
from sqakd.app.sweep.job import JobError, run_job
from sqakd.app.sweep.outcome import summary
from sqakd.app.sweep.store import DONE, FAILED, SET_ASIDE, WAITING, JobStore


def action(result: Any) -> Callable[[], Any]:
    """An action that prints something, then returns or raises `result`."""

    def run() -> Any:
        print("printed")
        os.system("echo from another program; echo an error >&2")
        if isinstance(result, BaseException):
            raise result
        return result

    return run


def test_successful_job_records_its_score_and_its_log(store: JobStore, tmp_path: Path) -> None:
    assert [job.state for job in store.jobs()] == [WAITING] * 3
    assert run_job(store, 1, action(0.75), run="cell-seed1", folder=tmp_path / "run", epochs=7) == 0.75
    before, job, after = store.jobs()
    assert (before.state, after.state) == (WAITING, WAITING)
    assert (job.state, job.score, job.skipped, job.epochs, job.name) == (DONE, 0.75, False, 7, "cell-seed1")
    assert job.ended >= job.started > 0
    log = Path(job.log)
    assert log.parent == store.folder
    assert log.read_text() == "printed\nfrom another program\nan error\n"


def test_output_returns_to_the_terminal_after_the_job(store: JobStore, capfd: pytest.CaptureFixture[str]) -> None:
    run_job(store, 0, action(0.5))
    print("after")
    assert capfd.readouterr().out == "after\n"


@pytest.mark.parametrize(
    ("error", "reason", "traceback"),
    [
        (RunFailed("error: wrong value"), "wrong value", False),
        (RuntimeError("a mistake\nin two lines"), "RuntimeError: a mistake", True),
        (MemoryError(), "MemoryError", True),
    ],
)
def test_failed_job_records_one_line_and_logs_unexpected_errors(
    store: JobStore, error: Exception, reason: str, traceback: bool
) -> None:
    with pytest.raises(JobError) as raised:
        run_job(store, 2, action(error))
    assert str(raised.value) == reason
    job = store.jobs()[2]
    assert (job.state, job.reason) == (FAILED, reason)
    assert ("Traceback" in Path(job.log).read_text()) == traceback


def test_ended_job_is_not_run_again_in_the_same_sweep(store: JobStore) -> None:
    run_job(store, 0, action(0.5))
    assert run_job(store, 0, action(0.9)) == 0.5
    with pytest.raises(JobError, match="mistake"):
        run_job(store, 1, action(RuntimeError("mistake")))
    with pytest.raises(JobError, match="mistake"):
        run_job(store, 1, action(0.9))


def test_job_that_was_set_aside_is_not_run_with_the_others(store: JobStore) -> None:
    store.write(replace(store.jobs()[0], state=SET_ASIDE))
    assert run_job(store, 0, action(RuntimeError("must not run"))) is None
    assert store.jobs()[0].state == SET_ASIDE


def test_run_finished_before_the_sweep_is_marked(store: JobStore, tmp_path: Path) -> None:
    (tmp_path / "record.json").touch()
    run_job(store, 0, action(0.5), folder=tmp_path)
    assert store.jobs()[0].skipped


def test_sigterm_to_one_process_of_the_sweep_fails_its_job(store: JobStore) -> None:
    with pytest.raises(JobError, match="stopped by SIGTERM; the state is saved"):
        run_job(store, 0, action(SystemExit(143)), parent=os.getppid())  # a parent that is alive
    assert [job.state for job in store.jobs()] == [FAILED, WAITING, WAITING]


@pytest.mark.parametrize("stop", [SystemExit(130), KeyboardInterrupt()])
def test_ctrl_c_in_a_process_of_the_sweep_fails_no_job(store: JobStore, stop: BaseException) -> None:
    with pytest.raises(type(stop)):
        run_job(store, 0, action(stop), parent=os.getppid())
    assert [job.state for job in store.jobs()] == [WAITING] * 3


@pytest.mark.parametrize("stop", [SystemExit(143), SystemExit(-1), KeyboardInterrupt()])
def test_job_stopped_by_a_scheduler_or_the_user_can_be_started_again(store: JobStore, stop: BaseException) -> None:
    with pytest.raises(type(stop)):
        run_job(store, 0, action(stop), run="half")
    job = store.jobs()[0]
    assert job.state == WAITING
    assert ("the state is saved" in job.reason) == (getattr(stop, "code", 0) == 143)
    assert summary(store.jobs(), 9).splitlines()[:2] == [
        "3 runs in 9 s: 1 not finished, 2 not started",
        f"stopped: half: {job.reason}",
    ]
    assert run_job(store, 0, action(0.5)) == 0.5
    assert store.jobs()[0].reason == ""

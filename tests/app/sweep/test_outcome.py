"""The end of a sweep: scores, summary, and the command of the report."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from sqakd.app.sweep.job import JobError, run_job
from sqakd.app.sweep.outcome import show_outcome, summary
from sqakd.app.sweep.store import DONE, JobStore
from sqakd.report.__main__ import command_line
from sqakd.terminal import PROGRAM


def outcome_of_finished_jobs(store: JobStore, runs: Path) -> str:
    """Return what a sweep shows at its end if all its jobs have finished in a folder of runs."""
    for job in store.jobs():
        folder = runs / f"cell{job.number}" / "seed0"
        store.write(replace(job, state=DONE, run=f"cell{job.number} seed 0", folder=str(folder), score=0.5))
    out = io.StringIO()
    show_outcome(store, 60, out)
    return out.getvalue()


def test_scores_and_the_command_of_the_report_stay_at_the_end(store: JobStore, tmp_path: Path) -> None:
    lines = [line.split() for line in outcome_of_finished_jobs(store, tmp_path / "runs").splitlines()]
    assert lines[0][:2] == ["run", "top-1,"]
    assert lines[1] == ["cell0", "seed", "0", "50.00%"]
    assert lines[-1][:2] == ["all", "results:"]


@pytest.mark.parametrize(
    ("train", "report"), [("", ["python", "-m", "sqakd.report"]), ("sqakd-train", ["sqakd-report"])]
)
def test_the_report_accepts_the_command_that_a_sweep_prints(
    train: str, report: list[str], store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROGRAM, train)
    runs = tmp_path / "it's my runs"
    command = outcome_of_finished_jobs(store, runs).splitlines()[-1].removeprefix("all results: ")
    words = shlex.split(command)
    assert words[: len(report)] == report
    assert command_line().parse_args(words[len(report) :]).runs == [runs]


def test_a_sweep_without_scores_ends_in_its_summary_alone(store: JobStore) -> None:
    out = io.StringIO()
    show_outcome(store, 60, out)
    assert "top-1" not in out.getvalue()
    assert "all results" not in out.getvalue()


def fail() -> float:
    raise RuntimeError("mistake")


def test_summary_lists_failed_jobs_with_reason_and_log(store: JobStore) -> None:
    run_job(store, 0, lambda: 0.5, run="good")
    with pytest.raises(JobError):
        run_job(store, 1, fail, run="bad")
    text = summary(store.jobs(), 90)
    assert text.startswith("3 runs in 90 s: 1 trained, 1 failed, 1 not started\n")
    assert "failed: bad: RuntimeError: mistake\n        log: " in text
    assert text.endswith("\nthe same command runs only what is missing")
    run_job(store, 2, lambda: 0.5)
    store.write(replace(store.jobs()[1], state=DONE))
    assert summary(store.jobs(), 90) == "3 runs in 90 s: 3 trained"

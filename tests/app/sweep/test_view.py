"""The progress of a sweep, as a table and as lines."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sqakd.app.console import FLOAT_FIRST
from sqakd.app.sweep.job import JobError, run_job
from sqakd.app.sweep.store import DONE, FAILED, RUNNING, SET_ASIDE, WAITING, Job, JobStore
from sqakd.app.sweep.view import _Changes, progress_table, seconds_left, show_progress
from sqakd.runs.folder import AWAITED


def some_jobs(tmp_path: Path) -> list[Job]:
    (tmp_path / "metrics.csv").write_text("epoch\n0\n1\n2\n3\n4\n")
    return [
        Job(0, "", DONE, run="good", started=0, ended=100, score=0.9, epochs=10),
        Job(1, "", DONE, run="before", started=0, ended=1, score=0.95, skipped=True),
        Job(2, "", RUNNING, run="half", folder=str(tmp_path), started=50, epochs=10),
        Job(3, "", RUNNING, run="new", folder=str(tmp_path / "none"), started=90, epochs=10),
        Job(4, "", FAILED, run="bad", reason="wrong value", log="somewhere.log", started=0, ended=2),
        Job(5, "seed=5", WAITING),
    ]


def test_time_left(tmp_path: Path) -> None:
    jobs = some_jobs(tmp_path)
    left = seconds_left(jobs, 100)
    assert left[2] == 50  # half of the job's epochs took 50 s
    assert left[3] == 90  # as long as the trained run took; the skipped one does not count
    assert left[None] == (50 + 90 + 100) / 2
    resumed = replace(jobs[2], epochs_before=4)
    assert seconds_left([resumed], 100)[2] == 50 / 1 * 5  # one new epoch took 50 s, five are left
    assert seconds_left([replace(resumed, epochs_before=5)], 100) == {}
    assert seconds_left(jobs[1:], 100) == {2: 50}  # no estimate for a job without a finished epoch


def test_table_shows_counts_epochs_failures_and_best_runs(tmp_path: Path) -> None:
    out = io.StringIO()
    Console(file=out, width=100, force_terminal=True, color_system=None).print(progress_table(some_jobs(tmp_path), 100))
    text = out.getvalue()
    for part in ("3/6", "2 done, 2 running, 1 waiting, 1 failed", "about 2 min left", "5/10", "0/10", "wrong value"):
        assert part in text
    best = [line for line in text.splitlines() if "best so far" in line]
    assert len(best) == 2
    assert "before" in best[0]
    assert "95.00%" in best[0]
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100


def test_a_job_that_waits_for_a_float_run_says_so(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.write_text(f"runs/teacher/seed0{AWAITED}\n")
    job = Job(2, "", RUNNING, run="student", folder=str(tmp_path / "none"), log=str(log), started=50, epochs=10)
    out = io.StringIO()
    Console(file=out, width=120).print(progress_table([job], 100))
    assert "student: waits for runs/teacher/seed0" in out.getvalue()


def test_a_file_gets_a_line_when_a_job_trains_its_float_run_first(store: JobStore) -> None:
    log = store.folder / "job.log"
    log.write_text(f"{FLOAT_FIRST}runs/teacher/seed0\n")
    job = replace(store.jobs()[0], state=RUNNING, run="student", log=str(log))
    changes = _Changes()
    assert changes.lines([job]) == ["[0/1]  student: trains its float run first"]
    assert changes.lines([job]) == []
    log.write_text(log.read_text() + "finished: teacher seed 0, top-1 99.00%\n")
    assert changes.lines([job]) == ["[0/1]  student: its own training begins"]


def succeed() -> float:
    time.sleep(0.3)  # long enough for the job to be shown as running
    return 0.5


def fail() -> float:
    raise RuntimeError("mistake")


def test_file_gets_one_line_for_each_change(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqakd.app.sweep.view.REFRESH_SECONDS", 0.02)
    out = io.StringIO()
    with show_progress(store, out):
        run_job(store, 0, succeed, run="good")
        with pytest.raises(JobError):
            run_job(store, 1, fail, run="bad")
        store.write(replace(store.jobs()[2], state=SET_ASIDE, losses=2))
    lines = out.getvalue().splitlines()
    assert lines[0] == "[0/3]  started: good"
    assert lines[1].startswith("[1/3]  done in 0 s: good, score 50.00%") or "[2/3]" in lines[1]
    assert any("FAILED: bad: RuntimeError: mistake (log: " in line for line in lines)
    assert lines[-1].endswith("process killed, starting again at the end, alone: seed=2")
    assert len(lines) <= 5

"""A sweep's jobs on their board, and what is shown of them; no launcher, no training."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sqakd.app.compose import Told
from sqakd.app.sweep import job as module
from sqakd.app.sweep.board import ASIDE, DONE, FAILED, RUNNING, WAITING, Board, Job
from sqakd.app.sweep.job import JobError, claim_device, do
from sqakd.app.sweep.view import as_table, ending, eta, watching


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board.new(tmp_path / ".sweeps", [(number, f"seed={number}") for number in range(3)])


def work(result: Any) -> Any:
    """A job's work: says something, then returns or raises."""

    def run() -> Any:
        print("spoken")
        os.system("echo from another program; echo an error >&2")
        if isinstance(result, BaseException):
            raise result
        return result

    return run


def test_a_job_that_works(board: Board, tmp_path: Path) -> None:
    assert [job.state for job in board.jobs()] == [WAITING] * 3
    assert do(board, 1, work(0.75), run="cell-seed1", folder=tmp_path / "run", epochs=7) == 0.75
    before, job, after = board.jobs()
    assert (before.state, after.state) == (WAITING, WAITING)
    assert (job.state, job.score, job.skipped, job.epochs, job.name) == (DONE, 0.75, False, 7, "cell-seed1")
    assert job.ended >= job.started > 0
    log = Path(job.log)
    assert log.parent == board.folder
    assert log.read_text() == "spoken\nfrom another program\nan error\n"


def test_output_comes_back_after_the_job(board: Board, capfd: pytest.CaptureFixture[str]) -> None:
    do(board, 0, work(0.5))
    print("after")
    assert capfd.readouterr().out == "after\n"


@pytest.mark.parametrize(
    ("error", "reason", "traceback"),
    [
        (Told("error: wrong word"), "wrong word", False),
        (RuntimeError("a mistake\nin two lines"), "RuntimeError: a mistake", True),
        (MemoryError(), "MemoryError", True),
    ],
)
def test_a_job_that_fails(board: Board, error: Exception, reason: str, traceback: bool) -> None:
    with pytest.raises(JobError) as raised:
        do(board, 2, work(error))
    assert str(raised.value) == reason
    job = board.jobs()[2]
    assert (job.state, job.reason) == (FAILED, reason)
    assert ("Traceback" in Path(job.log).read_text()) == traceback


def test_what_was_done_or_failed_in_this_sweep_is_not_done_again(board: Board) -> None:
    do(board, 0, work(0.5))
    assert do(board, 0, work(0.9)) == 0.5
    with pytest.raises(JobError, match="mistake"):
        do(board, 1, work(RuntimeError("mistake")))
    with pytest.raises(JobError, match="mistake"):
        do(board, 1, work(0.9))


def test_a_run_that_was_finished_before_says_so(board: Board, tmp_path: Path) -> None:
    (tmp_path / "record.json").touch()
    do(board, 0, work(0.5), folder=tmp_path)
    assert board.jobs()[0].skipped


def test_sigterm_to_one_process_fails_one_job(board: Board) -> None:
    with pytest.raises(JobError, match="stopped by SIGTERM; the state is saved"):
        do(board, 0, work(SystemExit(143)), parent=os.getppid())  # it is there, so nobody is told to stop
    assert [job.state for job in board.jobs()] == [FAILED, WAITING, WAITING]


@pytest.mark.parametrize("end", [SystemExit(143), SystemExit(-1), KeyboardInterrupt()])
def test_a_job_that_is_stopped_can_be_started_again(board: Board, end: BaseException) -> None:
    """By whoever stopped it: a scheduler that has queued it again, or a person."""
    with pytest.raises(type(end)):
        do(board, 0, work(end), run="half")
    job = board.jobs()[0]
    assert job.state == WAITING
    assert ("the state is saved" in job.reason) == (getattr(end, "code", 0) == 143)
    assert ending(board.jobs(), 9).splitlines()[:2] == [
        "3 runs in 9 s: 1 not finished, 2 not started",
        f"stopped: half: {job.reason}",
    ]
    assert do(board, 0, work(0.5)) == 0.5
    assert board.jobs()[0].reason == ""


def test_a_process_without_its_parent_lets_its_job_stop_and_ends(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.02)
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda *_: ended.set())
    parent = [os.getppid()]
    monkeypatch.setattr(os, "getppid", lambda: parent[0])
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())

    def lose_parent() -> float:
        parent[0] = 1
        return float(asked.wait(5) and not ended.is_set())

    try:
        assert do(board, 0, lambda: float(asked.wait(0.2)), parent=parent[0]) == 0.0
        assert do(board, 1, lose_parent, parent=parent[0]) == 1.0
        assert ended.wait(5)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_lost_jobs_wait_again_then_aside_until_they_are_given_up(board: Board) -> None:
    states = []
    for _ in range(3):
        board.write(replace(board.jobs()[0], state=RUNNING))
        board.write(replace(board.jobs()[1], state=DONE))
        assert [job.number for job in board.lose(3)] == [0]
        states.append([job.state for job in board.jobs()])
    assert states == [[WAITING, DONE, WAITING], [ASIDE, DONE, WAITING], [FAILED, DONE, WAITING]]
    assert "killed 3 times" in board.jobs()[0].reason
    assert board.lose(3) == []


def test_what_is_aside_is_not_done_with_the_others(board: Board) -> None:
    board.write(replace(board.jobs()[0], state=ASIDE))
    assert do(board, 0, work(RuntimeError("must not run"))) is None
    assert board.jobs()[0].state == ASIDE


def test_each_process_has_one_gpu(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from sqakd.app.sweep.job import claim_device;"
        "claim_device(Path(sys.argv[1]), ['4', 'GPU-7'], 4); claim_device(Path(sys.argv[1]), ['4', 'GPU-7'], 4);"
        "print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = str(Path(module.__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": root}
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(4)
    ]
    devices = [process.stdout.readline().strip() for process in processes if process.stdout]
    for process in processes:
        process.communicate("")
    assert sorted(devices) == ["4", "4", "GPU-7", "GPU-7"]


def test_one_gpu_is_everybodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    claim_device(tmp_path, ["0"], 4)
    claim_device(tmp_path, [], 4)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert list(tmp_path.iterdir()) == []


def some_jobs(tmp_path: Path) -> list[Job]:
    (tmp_path / "metrics.csv").write_text("epoch\n0\n1\n2\n3\n4\n")
    return [
        Job(0, "", DONE, run="good", started=0, ended=100, score=0.9, epochs=10),
        Job(1, "", DONE, run="before", started=0, ended=1, score=0.95, skipped=True),
        Job(2, "", RUNNING, run="half", folder=str(tmp_path), started=50, epochs=10),
        Job(3, "", RUNNING, run="new", folder=str(tmp_path / "none"), started=90, epochs=10),
        Job(4, "", FAILED, run="bad", reason="wrong word", log="somewhere.log", started=0, ended=2),
        Job(5, "seed=5", WAITING),
    ]


def test_time_left(tmp_path: Path) -> None:
    jobs = some_jobs(tmp_path)
    left = eta(jobs, 100)
    assert left[2] == 50  # half of its epochs took 50 s
    assert left[3] == 90  # as long as the one that was trained; the one done before does not count
    assert left[None] == (50 + 90 + 100) / 2
    resumed = replace(jobs[2], begun=4)
    assert eta([resumed], 100)[2] == 50 / 1 * 5  # one new epoch took 50 s, five are left
    assert eta([replace(resumed, begun=5)], 100) == {}
    assert eta(jobs[1:], 100) == {2: 50}  # of one that has no epoch yet, nothing is known


def test_the_table_has_it_all(tmp_path: Path) -> None:
    out = io.StringIO()
    Console(file=out, width=100, force_terminal=True, color_system=None).print(as_table(some_jobs(tmp_path), 100))
    text = out.getvalue()
    for words in ("3/6", "2 done, 2 running, 1 waiting, 1 failed", "about 2 min left", "5/10", "0/10", "wrong word"):
        assert words in text
    best = [line for line in text.splitlines() if "best so far" in line]
    assert len(best) == 2
    assert "before" in best[0]
    assert "95.00%" in best[0]
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100


def slow() -> float:
    time.sleep(0.3)
    return 0.5


def test_plain_lines_where_nobody_watches(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqakd.app.sweep.view.REFRESH", 0.02)
    out = io.StringIO()
    with watching(board, out):
        do(board, 0, slow, run="good")
        with pytest.raises(JobError):
            do(board, 1, work(RuntimeError("mistake")), run="bad")
    lines = out.getvalue().splitlines()
    assert lines[0] == "[0/3]  started: good"
    assert lines[1].startswith("[1/3]  done in 0 s: good, top-1 50.00%") or "[2/3]" in lines[1]
    assert any("FAILED: bad: RuntimeError: mistake (log: " in line for line in lines)
    assert len(lines) <= 4


def test_the_end_lists_what_failed(board: Board) -> None:
    do(board, 0, work(0.5), run="good")
    with pytest.raises(JobError):
        do(board, 1, work(RuntimeError("mistake")), run="bad")
    text = ending(board.jobs(), 90)
    assert text.startswith("3 runs in 90 s: 1 trained, 1 failed, 1 not started\n")
    assert "failed: bad: RuntimeError: mistake\n        log: " in text
    assert text.endswith("\nthe same command does only what is missing")
    do(board, 2, work(0.5))
    board.write(replace(board.jobs()[1], state=DONE))
    assert ending(board.jobs(), 90) == "3 runs in 90 s: 3 trained"

"""The progress of a sweep: in a terminal one table that changes in place, elsewhere one line for each change."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sqakd.app.sweep.stage import stage_of
from sqakd.app.sweep.store import DONE, FAILED, PENDING, RUNNING, SET_ASIDE, WAITING, Job, JobStore
from sqakd.runs.folder import RunFolder
from sqakd.terminal import duration

REFRESH_SECONDS = 1.0
MAX_ROWS = 16  # of running jobs, and as many of failed ones
BEST_ROWS = 3  # of finished runs


@contextmanager
def show_progress(store: JobStore, out: TextIO) -> Iterator[None]:
    """Show the state of the sweep while the block runs.

    Args:
        store: states of the sweep's jobs.
        out: where to show them.
    """
    console = Console(file=out, highlight=False)
    ended = threading.Event()
    changes = _Changes()
    # Not console.is_terminal, which environment variables can force where the output is a file.
    in_terminal = out.isatty() and not console.is_dumb_terminal
    live = Live(console=console, refresh_per_second=4, transient=True) if in_terminal else None

    def update() -> None:
        jobs = store.jobs()
        if live is not None:
            live.update(progress_table(jobs, time.time()))
            return
        for line in changes.lines(jobs):
            out.write(line + "\n")
        out.flush()

    def update_until_ended() -> None:
        while not ended.wait(REFRESH_SECONDS):
            with suppress(OSError):  # a shared disk can fail for a moment
                update()

    thread = threading.Thread(target=update_until_ended, daemon=True)
    with live or nullcontext():
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            if live is None:
                update()


class _Changes:
    """The changes between two states of a sweep: one line for each job that started, ended or was lost."""

    def __init__(self) -> None:
        self.states: dict[int, tuple[str, int, str]] = {}

    def lines(self, jobs: Sequence[Job]) -> list[str]:
        """Return a line for each job that has changed since the last call."""
        lines = []
        for job in jobs:
            now = stage_of(job) if job.state == RUNNING else ""
            state, before = (job.state, job.losses, now), self.states.get(job.number, (WAITING, 0, ""))
            if state != before:
                own = state[:2] == before[:2] and not now  # the job's own training begins
                line = f"{job.name}: {now or 'its own training begins'}" if now or own else _line(job)
                lines.append(f"{_fraction_ended(jobs)}  {line}")
            self.states[job.number] = state
        return lines


def _fraction_ended(jobs: Sequence[Job]) -> str:
    ended = sum(job.state in (DONE, FAILED) for job in jobs)
    return f"[{ended}/{len(jobs)}]"


def _line(job: Job) -> str:
    """Return one line about a job that has changed."""
    if job.state == DONE:
        outcome = "done before" if job.skipped else f"done in {duration(job.ended - job.started)}"
        return f"{outcome}: {job.name}" + ("" if job.score is None else f", score {percent(job.score)}")
    if job.state == FAILED:
        return f"FAILED: {job.name}: {job.reason}" + (f" (log: {job.log})" if job.log else "")
    if job.state in PENDING:
        if job.reason:
            return f"{job.name}: {job.reason}"
        when = "at the end, alone" if job.state == SET_ASIDE else "now"
        return f"process killed, starting again {when}: {job.name}"
    return f"started: {job.name}"


def percent(score: float | None) -> str:
    """Return a score as text, "" if there is none."""
    return "" if score is None else f"{100 * score:.2f}%"


def _epochs_done(job: Job) -> int:
    return RunFolder(Path(job.folder)).epochs_done if job.folder else 0


def seconds_left(jobs: Sequence[Job], now: float) -> dict[int | None, float]:
    """Estimate how long each running job and the whole sweep will take.

    A running job is assumed to keep its speed. A waiting job is assumed to take as long as the finished ones did on
    average, and the number of concurrent jobs is assumed to stay as it is.

    Args:
        jobs: all jobs of the sweep.
        now: seconds since 1970.

    Returns:
        Seconds by number of the job, and by None for the sweep. What cannot be estimated yet is omitted.
    """
    trained = [job.ended - job.started for job in jobs if job.state == DONE and not job.skipped]
    running = [job for job in jobs if job.state == RUNNING]
    pending = sum(job.state in PENDING for job in jobs)
    left: dict[int | None, float] = {}
    for job in running:
        done = _epochs_done(job)
        if done > job.epochs_before:
            left[job.number] = (now - job.started) / (done - job.epochs_before) * (job.epochs - done)
        elif trained:
            left[job.number] = max(sum(trained) / len(trained) - (now - job.started), 0.0)
    if running and len(left) == len(running) and (trained or not pending):
        work = sum(left.values()) + (pending * sum(trained) / len(trained) if pending else 0.0)
        left[None] = max(work / len(running), *left.values())
    return left


def progress_table(jobs: Sequence[Job], now: float) -> RenderableType:
    """Return the state of a sweep as a table.

    Args:
        jobs: all jobs of the sweep.
        now: seconds since 1970.
    """
    count = {state: sum(job.state == state for job in jobs) for state in (DONE, RUNNING, WAITING, SET_ASIDE, FAILED)}
    left = seconds_left(jobs, now)
    ended = count[DONE] + count[FAILED]
    head = Table.grid(padding=(0, 2))
    counts = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    rest = f"about {duration(left[None])} left" if None in left else ""
    head.add_row(ProgressBar(total=len(jobs), completed=ended, width=30), f"{ended}/{len(jobs)}", counts, rest)
    body = Table(box=None, padding=(0, 2), pad_edge=False, show_edge=False)
    for title in ("", "run", "epoch", "score", "left"):
        body.add_column(title, justify="left" if title in ("", "run") else "right", overflow="fold")
    for job in [job for job in jobs if job.state == RUNNING][:MAX_ROWS]:
        rest = duration(left[job.number]) if job.number in left else ""
        before = stage_of(job)
        name = f"{job.name}: {before}" if before else job.name
        body.add_row(Text("running", "cyan"), Text(name), f"{_epochs_done(job)}/{job.epochs}", "", rest)
    for job in [job for job in jobs if job.state == FAILED][-MAX_ROWS:]:
        body.add_row(Text("failed", "red"), Text(f"{job.name}: {job.reason}"), "", "", "")
    finished = [job for job in jobs if job.state == DONE and job.score is not None]
    for job in sorted(finished, key=lambda job: -(job.score or 0.0))[:BEST_ROWS]:
        body.add_row(Text("best so far", "green"), Text(job.name), "", percent(job.score), "")
    return Group(head, body)

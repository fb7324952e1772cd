"""The progress of a sweep: in a terminal one table that changes in place, elsewhere one line for each change."""

from __future__ import annotations

import shlex
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

from sqakd.app.console import FLOAT_FIRST
from sqakd.app.sweep.store import DONE, FAILED, RUNNING, SET_ASIDE, WAITING, Job, JobStore
from sqakd.runs.folder import AWAITED, RunFolder
from sqakd.terminal import duration, program

REFRESH_SECONDS = 1.0
MAX_ROWS = 16  # of running jobs, and as many of failed ones
BEST_ROWS = 3  # of finished runs
WIDE = 200  # characters
SCORE = "top-1, without labels the agreement"  # of the last epoch
MAX_SCORES = 60  # rows of the table at the end
LOOKED_AT = 65536  # characters at the beginning of a job's log
PENDING = (WAITING, SET_ASIDE)


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
            now = _stage(job) if job.state == RUNNING else ""
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
        return f"{outcome}: {job.name}" + ("" if job.score is None else f", score {_percent(job.score)}")
    if job.state == FAILED:
        return f"FAILED: {job.name}: {job.reason}" + (f" (log: {job.log})" if job.log else "")
    if job.state in PENDING:
        if job.reason:
            return f"{job.name}: {job.reason}"
        when = "at the end, alone" if job.state == SET_ASIDE else "now"
        return f"process killed, starting again {when}: {job.name}"
    return f"started: {job.name}"


def _percent(score: float | None) -> str:
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
        before = _stage(job)
        name = f"{job.name}: {before}" if before else job.name
        body.add_row(Text("running", "cyan"), Text(name), f"{_epochs_done(job)}/{job.epochs}", "", rest)
    for job in [job for job in jobs if job.state == FAILED][-MAX_ROWS:]:
        body.add_row(Text("failed", "red"), Text(f"{job.name}: {job.reason}"), "", "", "")
    finished = [job for job in jobs if job.state == DONE and job.score is not None]
    for job in sorted(finished, key=lambda job: -(job.score or 0.0))[:BEST_ROWS]:
        body.add_row(Text("best so far", "green"), Text(job.name), "", _percent(job.score), "")
    return Group(head, body)


def stage(log: str) -> str:
    """Return what a running job does before its own training, by its log: "" once that has begun.

    Example:
        >>> stage("the float network comes first: runs/a/seed0\\nrun runs/a/seed0\\n")
        'trains its float run first'
        >>> stage("runs/a/seed0 is being trained by another process; waiting for it\\n")
        'waits for runs/a/seed0'
        >>> stage("the float network comes first: runs/a/seed0\\nfinished: a seed 0\\n")
        ''
    """
    found = ""
    for line in log.splitlines():
        if line.startswith(FLOAT_FIRST):
            found = "trains its float run first"
        elif line.endswith(AWAITED):
            found = f"waits for {line.removesuffix(AWAITED)}"
        elif line.startswith(("finished: ", "done before: ")):
            found = ""
    return found


def _stage(job: Job) -> str:
    """Return the stage of a running job; its float run comes at the beginning of its log."""
    with suppress(OSError), Path(job.log).open(encoding="utf-8", errors="replace") as log:
        return stage(log.read(LOOKED_AT))
    return ""


def scores(jobs: Sequence[Job]) -> RenderableType | None:
    """Return the scores of all finished jobs as a table, in the order of the sweep; None if there are none."""
    finished = [job for job in jobs if job.state == DONE and job.score is not None]
    if not finished:
        return None
    body = Table(box=None, padding=(0, 2), pad_edge=False, show_edge=False)
    body.add_column("run", overflow="fold")
    body.add_column(SCORE, justify="right")
    for job in finished[:MAX_SCORES]:
        body.add_row(Text(job.name), _percent(job.score))
    if len(finished) > MAX_SCORES:
        body.add_row(f"and {len(finished) - MAX_SCORES} more", "")
    return body


def show_outcome(store: JobStore, seconds: float, out: TextIO, *, scored: bool = True) -> None:
    """Show the scores and the outcome of a sweep, and the command for the report of its runs.

    Args:
        store: states of the sweep's jobs.
        seconds: how long the sweep took.
        out: where to show them.
        scored: whether to show more than the outcome; a search, which is a sweep for each batch of trials, does not.
    """
    jobs = store.jobs()
    if scored and (table := scores(jobs)):
        width = None if out.isatty() else WIDE  # rich would fold a file's lines at 80 characters
        Console(file=out, highlight=False, width=width).print(table)
    out.write(f"{summary(jobs, seconds)}\n")
    folders = {str(RunFolder(Path(job.folder)).runs) for job in jobs if scored and job.state == DONE and job.folder}
    for folder in sorted(folders):
        report = "sqakd-report" if program("") else "python -m sqakd.report"
        out.write(f"all results: {report} {shlex.quote(folder)}\n")
    out.flush()


def summary(jobs: Sequence[Job], seconds: float) -> str:
    """Return the outcome of a sweep: counts, then each failed or stopped job with its reason and log.

    Args:
        jobs: all jobs of the sweep.
        seconds: how long the sweep took.
    """
    counts = {
        "trained": sum(job.state == DONE and not job.skipped for job in jobs),
        "done before": sum(job.state == DONE and job.skipped for job in jobs),
        "failed": sum(job.state == FAILED for job in jobs),
        "not finished": sum(job.state == RUNNING or (job.state in PENDING and bool(job.reason)) for job in jobs),
        "not started": sum(job.state in PENDING and not job.reason for job in jobs),
    }
    parts = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    lines = [f"{len(jobs)} runs in {duration(seconds)}: {parts}"]
    for job in jobs:
        if job.reason and job.state != DONE:
            lines.append(f"{'failed' if job.state == FAILED else 'stopped'}: {job.name}: {job.reason}")
            lines += [f"        log: {job.log}"] if job.log else []
    if sum(job.state == DONE for job in jobs) < len(jobs):
        lines.append("the same command runs only what is missing")
    return "\n".join(lines)

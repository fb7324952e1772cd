"""What a person sees of a sweep: one table that changes in place, or one line for each change where nobody watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sqakd.app.plan import duration
from sqakd.app.sweep.board import ASIDE, DONE, FAILED, RUNNING, WAITING, Board, Job
from sqakd.app.sweep.job import epochs_done

REFRESH = 1.0  # seconds
BEST = 3  # so many of the finished runs are shown
LATER = (WAITING, ASIDE)
SHOWN = 16  # so many of the running ones, and of the failed ones


@contextmanager
def watching(board: Board, out: TextIO) -> Iterator[None]:
    """Show the sweep while the block runs.

    Args:
        board: of the sweep.
        out: where to show it.
    """
    console = Console(file=out, highlight=False)
    ended = threading.Event()
    lines = _Lines()
    # Not console.is_terminal: variables of the environment can force that where the output is a file.
    shown = out.isatty() and not console.is_dumb_terminal
    live = Live(console=console, refresh_per_second=4, transient=True) if shown else None

    def show() -> None:
        jobs = board.jobs()
        if live is not None:
            live.update(as_table(jobs, time.time()))
            return
        for line in lines.new(jobs):
            out.write(line + "\n")
        out.flush()

    def follow() -> None:
        while not ended.wait(REFRESH):
            with suppress(OSError):  # a shared disk may not answer for a moment
                show()

    thread = threading.Thread(target=follow, daemon=True)
    with live or nullcontext():
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            if live is None:
                show()


class _Lines:
    """What changed since the last look, a line for each job that began, ended or was lost."""

    def __init__(self) -> None:
        self.states: dict[int, tuple[str, int]] = {}

    def new(self, jobs: Sequence[Job]) -> list[str]:
        lines = []
        for job in jobs:
            state = (job.state, job.lost)
            if self.states.get(job.number, (WAITING, 0)) != state:
                lines.append(f"{_counts(jobs)}  {_line(job)}")
            self.states[job.number] = state
        return lines


def _counts(jobs: Sequence[Job]) -> str:
    ended = sum(job.state in (DONE, FAILED) for job in jobs)
    return f"[{ended}/{len(jobs)}]"


def _line(job: Job) -> str:
    if job.state == DONE:
        how = "done before" if job.skipped else f"done in {duration(job.ended - job.started)}"
        return f"{how}: {job.name}{_percent(', top-1 ', job.score)}"
    if job.state == FAILED:
        return f"FAILED: {job.name}: {job.reason}" + (f" (log: {job.log})" if job.log else "")
    if job.state in LATER:
        if job.reason:
            return f"{job.name}: {job.reason}"
        when = " when the others are done" if job.state == ASIDE else ""
        return f"its process was killed, it is started again{when}: {job.name}"
    return f"started: {job.name}"


def _percent(before: str, score: float | None) -> str:
    return "" if score is None else f"{before}{100 * score:.2f}%"


def eta(jobs: Sequence[Job], now: float) -> dict[int | None, float]:
    """Seconds left of each running job by its number, and of the sweep by None; what cannot be known is left out.

    A running job goes on as fast as it did; waiting ones take what finished ones took, as many at a time as run now.
    """
    trained = [job.ended - job.started for job in jobs if job.state == DONE and not job.skipped]
    running = [job for job in jobs if job.state == RUNNING]
    waiting = sum(job.state in LATER for job in jobs)
    left: dict[int | None, float] = {}
    for job in running:
        done = epochs_done(job)
        if done > job.begun:
            left[job.number] = (now - job.started) / (done - job.begun) * (job.epochs - done)
        elif trained:
            left[job.number] = max(sum(trained) / len(trained) - (now - job.started), 0.0)
    if running and len(left) == len(running) and (trained or not waiting):
        work = sum(left.values()) + (waiting * sum(trained) / len(trained) if waiting else 0.0)
        left[None] = max(work / len(running), *left.values())
    return left


def as_table(jobs: Sequence[Job], now: float) -> RenderableType:
    """The sweep at one moment.

    Args:
        jobs: all of them.
        now: seconds since 1970.
    """
    count = {state: sum(job.state == state for job in jobs) for state in (DONE, RUNNING, WAITING, ASIDE, FAILED)}
    left = eta(jobs, now)
    ended = count[DONE] + count[FAILED]
    head = Table.grid(padding=(0, 2))
    summary = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    rest = f"about {duration(left[None])} left" if None in left else ""
    head.add_row(ProgressBar(total=len(jobs), completed=ended, width=30), f"{ended}/{len(jobs)}", summary, rest)
    body = Table(box=None, padding=(0, 2), pad_edge=False, show_edge=False)
    for title in ("", "run", "epoch", "top-1", "left"):
        body.add_column(title, justify="left" if title in ("", "run") else "right", overflow="fold")
    for job in [job for job in jobs if job.state == RUNNING][:SHOWN]:
        rest = duration(left[job.number]) if job.number in left else ""
        body.add_row(Text("running", "cyan"), Text(job.name), f"{epochs_done(job)}/{job.epochs}", "", rest)
    for job in [job for job in jobs if job.state == FAILED][-SHOWN:]:
        body.add_row(Text("failed", "red"), Text(f"{job.name}: {job.reason}"), "", "", "")
    finished = [job for job in jobs if job.state == DONE and job.score is not None]
    for job in sorted(finished, key=lambda job: -(job.score or 0.0))[:BEST]:
        body.add_row(Text("best so far", "green"), Text(job.name), "", _percent("", job.score), "")
    return Group(head, body)


def ending(jobs: Sequence[Job], seconds: float) -> str:
    """What came of a sweep: the sum, and each failed or stopped job with its reason and log."""
    counts = {
        "trained": sum(job.state == DONE and not job.skipped for job in jobs),
        "done before": sum(job.state == DONE and job.skipped for job in jobs),
        "failed": sum(job.state == FAILED for job in jobs),
        "not finished": sum(job.state == RUNNING or (job.state in LATER and bool(job.reason)) for job in jobs),
        "not started": sum(job.state in LATER and not job.reason for job in jobs),
    }
    parts = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    lines = [f"{len(jobs)} runs in {duration(seconds)}: {parts}"]
    for job in jobs:
        if job.reason and job.state != DONE:
            lines.append(f"{'failed' if job.state == FAILED else 'stopped'}: {job.name}: {job.reason}")
            lines += [f"        log: {job.log}"] if job.log else []
    if sum(job.state == DONE for job in jobs) < len(jobs):
        lines.append("the same command does only what is missing")
    return "\n".join(lines)

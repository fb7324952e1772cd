"""The end of a sweep: its scores, its outcome, and the command for the report of its runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from sqakd.app.sweep.store import DONE, FAILED, PENDING, RUNNING, Job, JobStore
from sqakd.app.sweep.view import percent
from sqakd.runs.folder import RunFolder
from sqakd.terminal import duration, program

SCORE = "top-1, without labels the agreement"  # of the last epoch
MAX_SCORES = 60  # rows
WIDE = 200  # characters of a line in a file


def scores(jobs: Sequence[Job]) -> RenderableType | None:
    """Return the scores of all finished jobs as a table, in the order of the sweep; None if there are none."""
    finished = [job for job in jobs if job.state == DONE and job.score is not None]
    if not finished:
        return None
    body = Table(box=None, padding=(0, 2), pad_edge=False, show_edge=False)
    body.add_column("run", overflow="fold")
    body.add_column(SCORE, justify="right")
    for job in finished[:MAX_SCORES]:
        body.add_row(Text(job.name), percent(job.score))
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
        out.write(f"all results: {report} --runs {shlex.quote(folder)}\n")
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

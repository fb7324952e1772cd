"""What a running job of a sweep does before its own training, by its log."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sqakd.app.console import FLOAT_FIRST
from sqakd.app.sweep.store import Job
from sqakd.runs.folder import AWAITED

LOOKED_AT = 65536  # characters at the beginning of a log, where the float run is


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


def stage_of(job: Job) -> str:
    """Return the stage of a running job; "" if its log cannot be read."""
    with suppress(OSError), Path(job.log).open(encoding="utf-8", errors="replace") as log:
        return stage(log.read(LOOKED_AT))
    return ""

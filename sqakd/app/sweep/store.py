"""The states of a sweep's jobs as files, which any process on any machine can update and read.

    runs/.sweeps/<start>/  jobs.json  0.json 1.json ...  0-<run>.log ...

A job is one run of the sweep. The process that runs the job replaces the job's file as a whole.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from sqakd.files import WriteError, write_errors, write_text

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
SET_ASIDE = "set aside"  # waits until the others have ended, because it may be the job that kills processes
PENDING = (WAITING, SET_ASIDE)


@dataclass(frozen=True)
class Job:
    """The state of one job.

    Attributes:
        number: position in the sweep.
        overrides: overrides of the job, as one line.
        state: waiting, running, done, failed or set aside.
        run: name and seed of the run, once known.
        folder: folder of the run, once known.
        epochs: epochs of the run, once known; 0 if there are none.
        epochs_before: epochs that were done when the job started; more than 0 for a resumed run.
        log: file with the job's output.
        started: when the job started, in seconds since 1970; 0 if it has not.
        ended: when the job ended, likewise.
        skipped: whether the run had been finished before the sweep.
        score: top-1 (or agreement with the teacher) of the last epoch, 0 to 1.
        reason: why the job failed or stopped.
        losses: how often the job's process was killed.
    """

    number: int
    overrides: str
    state: str = WAITING
    run: str = ""
    folder: str = ""
    epochs: int = 0
    epochs_before: int = 0
    log: str = ""
    started: float = 0.0
    ended: float = 0.0
    skipped: bool = False
    score: float | None = None
    reason: str = ""
    losses: int = 0

    @property
    def name(self) -> str:
        """The run's name, or the overrides while the name is unknown."""
        return self.run or self.overrides


class JobStore:
    """The files of one sweep's jobs.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, sweeps: Path, jobs: Sequence[tuple[int, str]]) -> Self:
        """Create the files of a new sweep.

        Args:
            sweeps: folder of all sweeps.
            jobs: number and overrides of each job.
        """
        folder = sweeps / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-{os.getpid()}-{jobs[0][0]}"
        with write_errors(folder):
            folder.mkdir(parents=True)
        write_text(folder / "jobs.json", json.dumps([asdict(Job(number, overrides)) for number, overrides in jobs]))
        return cls(folder)

    def jobs(self) -> list[Job]:
        """Return the present state of all jobs, in order."""
        planned = json.loads((self.folder / "jobs.json").read_text())
        return [self.job(job["number"]) or Job(**job) for job in planned]

    def job(self, number: int) -> Job | None:
        """Return the state of one job, or None if no process has started it."""
        try:
            return Job(**json.loads(self.file(number).read_text()))
        except FileNotFoundError:
            return None

    def write(self, job: Job) -> None:
        """Replace the state of one job."""
        write_text(self.file(job.number), json.dumps(asdict(job)))

    def write_if_possible(self, job: Job) -> None:
        """Replace the state of one job, unless the disk is full: that may be why the job failed."""
        with suppress(WriteError):
            self.write(job)

    def file(self, number: int) -> Path:
        """Return the path of one job's state."""
        return self.folder / f"{number}.json"

    def mark_lost(self, limit: int) -> list[Job]:
        """Mark all running jobs as lost, after a kill that ended all processes of the pool.

        It is unknown which job caused the kill. Lost jobs are started again together, but a job lost `limit - 1` times
        is set aside and retried alone at the end. If that fails too, the job itself is the cause.

        Args:
            limit: a job lost so often has failed.

        Returns:
            The jobs that were running.
        """
        lost = [replace(job, losses=job.losses + 1) for job in self.jobs() if job.state == RUNNING]
        for job in lost:
            if job.losses < limit:
                self.write(replace(job, state=WAITING if job.losses < limit - 1 else SET_ASIDE))
            else:
                self.write(replace(job, state=FAILED, ended=time.time(), reason=killed_reason(job.losses)))
        return lost


def killed_reason(times: int) -> str:
    """Return the reason of a failure whose process was killed and could not report one."""
    count = "" if times == 1 else f" {times} times"
    return f"its process was killed{count} (kill -9, or out of memory: try fewer concurrent runs)"

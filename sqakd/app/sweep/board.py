"""The state of a sweep's jobs as files, so that any process on any machine can write its own and all can be read.

    runs/.sweeps/<start>/  jobs.json  0.json 1.json ...  0-<run>.log ...

A job is one run of the sweep. Its file is replaced as a whole by the process that has the job.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from sqakd.files import write_text

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
ASIDE = "aside"  # waits until the others are done, because it may be what kills processes


@dataclass(frozen=True)
class Job:
    """One job's state.

    Attributes:
        number: its place in the sweep.
        words: what was typed or swept for it.
        state: waiting, running, done, failed or aside.
        run: name and seed of its run, once known.
        folder: of its run.
        epochs: of its run.
        begun: so many of them were done when it started.
        log: file that takes its output.
        started: seconds since 1970; 0 if it has not.
        ended: likewise.
        skipped: whether its run had been finished before.
        score: top-1 (or agreement with the teacher) of the last epoch, 0 to 1.
        reason: why it failed, or stopped.
        lost: how often its process vanished.
    """

    number: int
    words: str
    state: str = WAITING
    run: str = ""
    folder: str = ""
    epochs: int = 0
    begun: int = 0
    log: str = ""
    started: float = 0.0
    ended: float = 0.0
    skipped: bool = False
    score: float | None = None
    reason: str = ""
    lost: int = 0

    @property
    def name(self) -> str:
        return self.run or self.words


class Board:
    """All jobs of one sweep.

    Args:
        folder: where their files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def new(cls, sweeps: Path, jobs: Sequence[tuple[int, str]]) -> Self:
        """Begin a sweep.

        Args:
            sweeps: folder of all sweeps.
            jobs: number and words of each.
        """
        folder = sweeps / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-{os.getpid()}-{jobs[0][0]}"
        folder.mkdir(parents=True)
        write_text(folder / "jobs.json", json.dumps([asdict(Job(number, words)) for number, words in jobs]))
        return cls(folder)

    def jobs(self) -> list[Job]:
        """All of them as they stand, in order."""
        planned = json.loads((self.folder / "jobs.json").read_text())
        return [self.job(job["number"]) or Job(**job) for job in planned]

    def job(self, number: int) -> Job | None:
        """One of them, or None if no process has had it yet."""
        try:
            return Job(**json.loads(self.file(number).read_text()))
        except FileNotFoundError:
            return None

    def write(self, job: Job) -> None:
        """Replace one job's state."""
        write_text(self.file(job.number), json.dumps(asdict(job)))

    def file(self, number: int) -> Path:
        """A job's own file."""
        return self.folder / f"{number}.json"

    def lose(self, most: int) -> list[Job]:
        """Put down those that were running as lost, because all their processes are gone.

        One of them may have killed the processes of all. What is lost for the last time but one is put aside, to run
        alone; what is lost once more has failed.

        Args:
            most: how often a job may be lost.

        Returns:
            Those that were running.
        """
        lost = [replace(job, lost=job.lost + 1) for job in self.jobs() if job.state == RUNNING]
        for job in lost:
            if job.lost < most:
                self.write(replace(job, state=WAITING if job.lost < most - 1 else ASIDE))
            else:
                self.write(replace(job, state=FAILED, ended=time.time(), reason=vanished(job.lost)))
        return lost


def vanished(times: int) -> str:
    """Why a job failed whose process went without a word."""
    often = "" if times == 1 else f" {times} times"
    return f"its process was killed{often} (kill -9, or out of memory: fewer runs at a time may help)"

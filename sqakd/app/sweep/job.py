"""One run as a job of a sweep: its state on the board, its output in a file, and what its process owes to others."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from sqakd.app.sweep.board import ASIDE, DONE, FAILED, RUNNING, WAITING, Board, Job

LOOK = 5.0  # seconds between two looks at the parent
SIGTERM_STATUS = 143
_BUSY = threading.Event()  # while this process does a job
_FOLLOWED: set[int] = set()  # parents that this process looks at
_HELD: list[FileLock] = []  # of this process's device, until the process ends


class JobError(Exception):
    """A job that failed; the message is the reason, its log has the rest."""


def do(
    board: Board,
    number: int,
    work: Callable[[], float | None],
    *,
    run: str = "",
    folder: Path | None = None,
    epochs: int = 0,
    parent: int = 0,
) -> float | None:
    """Do a job, unless this sweep has done it already.

    Args:
        board: of the sweep.
        number: of the job.
        work: what to do; its result is the score.
        run: name and seed, if it is a training.
        folder: of the run.
        epochs: of the run.
        parent: process without which the job shall save its state and stop; 0 if it lives on alone.

    Returns:
        Its score; None if it has none, or is not to be done now.

    Raises:
        JobError: if it failed, now or before.
    """
    job = board.job(number) or next(job for job in board.jobs() if job.number == number)
    if job.state == DONE:
        return job.score
    if job.state == FAILED:
        raise JobError(job.reason)
    if job.state == ASIDE:
        return None
    log = board.folder / f"{number}-{run or 'run'}.log"
    job = replace(
        job,
        state=RUNNING,
        run=run,
        folder=str(folder or ""),
        epochs=epochs,
        log=str(log),
        started=time.time(),
        skipped=folder is not None and (folder / "record.json").exists(),
        reason="",
    )
    job = replace(job, begun=epochs_done(job))
    board.write(job)
    _follow(parent)
    with _output_to(log), _busy():
        try:
            score = work()
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and not parent):
                # The sweep is to stop, or a scheduler stops this job and will start it again.
                board.write(replace(job, state=WAITING, reason=reason(error)))
                raise
            if not getattr(error, "told", False) and isinstance(error, Exception):
                traceback.print_exc()
            board.write(replace(job, state=FAILED, ended=time.time(), reason=reason(error)))
            raise JobError(reason(error)) from error
    board.write(replace(job, state=DONE, ended=time.time(), score=score))
    return score


def reason(error: BaseException) -> str:
    """Why a job ended, in one line."""
    text = str(error).strip()
    if isinstance(error, SystemExit | KeyboardInterrupt):
        if getattr(error, "code", None) == SIGTERM_STATUS:
            return "stopped by SIGTERM; the state is saved, the same command continues"
        return "stopped; the same command continues from the last whole epoch"
    if getattr(error, "told", False):
        return text.removeprefix("error: ")
    if isinstance(error, JobError):
        return text
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}".rstrip(": ")


def epochs_done(job: Job) -> int:
    """Whole epochs in its run's metrics.csv."""
    try:
        return max(len((Path(job.folder) / "metrics.csv").read_text().splitlines()) - 1, 0) if job.folder else 0
    except OSError:
        return 0


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Both outputs of this process into a file, also those of libraries written in C; appended."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    with log.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
            yield
        finally:
            for descriptor, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)


@contextmanager
def _busy() -> Iterator[None]:
    _BUSY.set()
    try:
        yield
    finally:
        _BUSY.clear()


def _follow(parent: int) -> None:
    """From now on, without its parent, this process asks its job to save and stop, and ends; 0 is no parent."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        if _BUSY.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
        while _BUSY.is_set():
            time.sleep(LOOK)
        os._exit(SIGTERM_STATUS)

    if parent and parent not in _FOLLOWED:
        _FOLLOWED.add(parent)
        threading.Thread(target=look, daemon=True).start()


def claim_device(folder: Path, devices: Sequence[str], processes: int) -> None:
    """Give this process one GPU of several, for as long as it lives; every GPU gets as many processes.

    Args:
        folder: of the sweep.
        devices: names of the GPUs as CUDA_VISIBLE_DEVICES takes them; with fewer than two, nothing is done.
        processes: of the sweep at a time.
    """
    if len(devices) < 2 or _HELD:
        return
    while True:
        for slot in range(max(processes, len(devices))):
            lock = FileLock(folder / f"device{slot}.lock")
            with suppress(Timeout):
                lock.acquire(timeout=0)
                _HELD.append(lock)
                os.environ["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
                return
        time.sleep(1)  # a process that was replaced is still going

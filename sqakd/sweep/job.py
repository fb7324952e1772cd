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

from sqakd.sweep.board import ASIDE, DONE, FAILED, RUNNING, Board, Job

BEAT = 5.0  # seconds between two signs of life
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
    finished = folder is not None and (folder / "record.json").exists()
    job = replace(
        job,
        state=RUNNING,
        run=run,
        folder=str(folder or ""),
        epochs=epochs,
        log=str(log),
        started=time.time(),
        skipped=finished,
    )
    board.write(job)
    with _output_to(log), _alive(board.file(number), parent):
        try:
            score = work()
        except (Exception, SystemExit) as error:
            if not parent and isinstance(error, SystemExit):  # the sweep itself is to stop
                _end(board, job, reason=_reason(error))
                raise
            if not getattr(error, "told", False):
                traceback.print_exc()
            _end(board, job, reason=_reason(error))
            raise JobError(_reason(error)) from error
        except KeyboardInterrupt:
            _end(board, job, reason="stopped by Ctrl-C; the same command continues")
            raise
    board.write(replace(job, state=DONE, ended=time.time(), score=score))
    return score


def _end(board: Board, job: Job, *, reason: str) -> None:
    board.write(replace(job, state=FAILED, ended=time.time(), reason=reason))


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, SystemExit):
        return "stopped by SIGTERM; the state is saved, the same command continues"
    if getattr(error, "told", False):
        return text.removeprefix("error: ")
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}".rstrip(": ")


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
def _alive(file: Path, parent: int) -> Iterator[None]:
    """Touch the file while the block runs; without its parent, this process asks itself to save and stop."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with suppress(OSError):
                os.utime(file)
            if parent and os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


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

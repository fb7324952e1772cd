"""One job of a sweep: its state is recorded, its output goes to a file, and its failure becomes one line."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sqakd.advice import explain
from sqakd.app.sweep.process import SIGTERM_STATUS, exit_with, job_running, output_to
from sqakd.app.sweep.store import DONE, FAILED, RUNNING, SET_ASIDE, WAITING, JobStore
from sqakd.errors import SqakdError
from sqakd.interrupts import INTERRUPT_STATUS
from sqakd.runs.folder import RunFolder


class JobError(Exception):
    """Raised when a job failed. The message is the reason; the job's log contains the details."""


def run_job(
    store: JobStore,
    number: int,
    action: Callable[[], float | None],
    *,
    run: str = "",
    folder: Path | None = None,
    epochs: int = 0,
    parent: int = 0,
) -> float | None:
    """Run a job, unless it has ended in this sweep already or is set aside.

    Args:
        store: states of the sweep's jobs.
        number: number of the job.
        action: what the job does; it returns the score.
        run: name and seed of the run, if the job trains one.
        folder: folder of the run.
        epochs: epochs of the run.
        parent: process id of the sweep, without which the job saves its state and stops; 0: independent of the sweep.

    Returns:
        The score of the job; None if it has no score or is set aside.

    Raises:
        JobError: if the job fails, or has failed before.
    """
    job = store.job(number) or next(job for job in store.jobs() if job.number == number)
    if job.state == DONE:
        return job.score
    if job.state == FAILED:
        raise JobError(job.reason)
    if job.state == SET_ASIDE:
        return None
    log = store.folder / f"{number}-{run or 'run'}.log"
    job = replace(
        job,
        state=RUNNING,
        run=run,
        folder=str(folder or ""),
        epochs=epochs,
        epochs_before=0 if folder is None else RunFolder(folder).epochs_done,
        log=str(log),
        started=time.time(),
        skipped=folder is not None and RunFolder(folder).finished,
        reason="",
    )
    store.write(job)
    if parent:
        exit_with(parent)
    with output_to(log), job_running():
        # Every error is recorded, and a mistake in the code with its traceback.
        try:
            score = action()
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # recorded below
            reason = failure_reason(error)
            # The user stops the whole sweep, or a scheduler stops this job and will start it again.
            if _is_interrupt(error) or (isinstance(error, SystemExit) and not parent):
                store.write(replace(job, state=WAITING, reason=reason))
                raise
            if isinstance(error, Exception) and not _is_user_error(error):
                traceback.print_exc()  # into the log
            store.write_if_possible(replace(job, state=FAILED, ended=time.time(), reason=reason))
            raise JobError(reason) from error
    store.write(replace(job, state=DONE, ended=time.time(), score=score))
    return score


def failure_reason(error: BaseException) -> str:
    """Return why a job failed or stopped, in one line."""
    text = str(error).strip()
    if isinstance(error, SystemExit | KeyboardInterrupt):
        if getattr(error, "code", None) == SIGTERM_STATUS:
            return "stopped by SIGTERM; the state is saved, the same command continues"
        return "stopped; the same command continues from the last whole epoch"
    if isinstance(error, SqakdError):
        return explain(error)
    if _is_user_error(error):
        return text.removeprefix("error: ")
    if isinstance(error, JobError):
        return text
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}".rstrip(": ")


def _is_user_error(error: BaseException) -> bool:
    """Return whether the message alone says what to do, so that no traceback is needed."""
    return isinstance(error, SqakdError) or getattr(error, "is_user_error", False)


def _is_interrupt(error: BaseException) -> bool:
    """Return whether the user stopped the job with Ctrl-C."""
    return isinstance(error, KeyboardInterrupt) or getattr(error, "code", None) == INTERRUPT_STATUS

"""The processes of a sweep: their output, their GPU, and their end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from filelock import FileLock, Timeout

SIGTERM_STATUS = 143  # exit code of a process that saved its state on SIGTERM: 128 + 15, as in a shell
POLL_SECONDS = 5.0  # between two checks that the parent is alive
# Errors by which launchers report a killed process. Names, because only the chosen launcher need be installed.
PROCESS_LOSSES = (
    *("TerminatedWorkerError", "BrokenProcessPool"),  # joblib
    "UncompletedJobError",  # submitit
    *("WorkerCrashedError", "OutOfMemoryError"),  # Ray
)
_job_runs = threading.Event()
_watched_parents: set[int] = set()
_gpu_locks: list[FileLock] = []  # the lock of this process's GPU, held until the process ends


def is_process_loss(error: BaseException) -> bool:
    """Return whether a launcher's error means that a process was killed."""
    return any(parent.__name__ in PROCESS_LOSSES for parent in type(error).__mro__)


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Append both outputs of this process to a file, including those of C libraries and child processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    originals = [os.dup(descriptor) for descriptor in (1, 2)]
    with log.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
            yield
        finally:
            for descriptor, original in zip((1, 2), originals, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


@contextmanager
def job_running() -> Iterator[None]:
    """Mark the block as a job, which gets a SIGTERM before this process ends; see `exit_with`."""
    _job_runs.set()
    try:
        yield
    finally:
        _job_runs.clear()


def exit_with(parent: int) -> None:
    """End this process soon after its parent; a running job gets a SIGTERM first and can save its state.

    Args:
        parent: process id of the parent.
    """

    def watch() -> None:
        while os.getppid() == parent:  # an orphan gets another parent
            time.sleep(POLL_SECONDS)
        if _job_runs.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
        while _job_runs.is_set():
            time.sleep(POLL_SECONDS)
        os._exit(SIGTERM_STATUS)

    if parent not in _watched_parents:  # the process runs several jobs, one after the other
        _watched_parents.add(parent)
        threading.Thread(target=watch, daemon=True).start()


def exit_on_sigterm() -> None:
    """Let this process, which only waits for its jobs, end at once on SIGTERM.

    Child processes then save their state (`exit_with`), and jobs of a scheduler continue without this process.
    """

    def stop(number: int, frame: object) -> None:
        if sys.stdout.isatty():
            print("\x1b[?25h")  # noqa: T201  # show the cursor, which the progress table hides
        print("stopped by SIGTERM; interrupted runs are saved, the same command continues", flush=True)  # noqa: T201
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)


def visible_gpus() -> list[str]:
    """Return the GPUs of this machine, in the form that CUDA_VISIBLE_DEVICES takes."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]


def claim_gpu(folder: Path, gpus: Sequence[str], processes: int) -> None:
    """Give this process one of several GPUs until the process ends, so that all GPUs get equally many processes.

    Args:
        folder: files of the sweep.
        gpus: names of the GPUs, as `visible_gpus` returns them; with fewer than two, nothing is done.
        processes: number of concurrent processes of the sweep.
    """
    if len(gpus) < 2 or _gpu_locks:
        return
    # Each slot has a lock file, and slots are dealt to the GPUs in turn. The system frees the lock of a killed process.
    while True:
        for slot in range(max(processes, len(gpus))):
            lock = FileLock(folder / f"gpu{slot}.lock")
            with suppress(Timeout):
                lock.acquire(timeout=0)
                _gpu_locks.append(lock)
                os.environ["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
                return
        time.sleep(1)  # a process that was replaced has not ended yet

"""Commands that are stopped while they run, or that have less room than they need."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import command
import warm_process

TIMEOUT = 180  # seconds


def run(words: Sequence[str], folder: Path, *, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
    """Run a command of this project to its end.

    Raises:
        subprocess.TimeoutExpired: if the command does not end; it and all processes that it started are killed.
    """
    return run_stopped(words, folder, timeout=timeout)[0]


def run_stopped(
    words: Sequence[str],
    folder: Path,
    *,
    after: float | Callable[[], bool] | None = None,
    by: signal.Signals = signal.SIGKILL,
    largest_file: int | None = None,
    timeout: float = TIMEOUT,
) -> tuple[subprocess.CompletedProcess[str], bool]:
    """Run a command of this project and stop it.

    Args:
        words: script or "-m", and its arguments.
        folder: where to run.
        after: seconds, or a condition that is asked again and again; None never stops the command.
        by: the signal.
        largest_file: bytes that a file may have at most; a longer write fails.
        timeout: seconds.

    Returns:
        The ended command, and whether the signal was sent.

    Raises:
        subprocess.TimeoutExpired: if the command does not end.
    """
    name, *arguments = words
    script = name if name.startswith("-") else str(command.ROOT / name)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"PYTHONPATH": f"{command.ROOT}{os.pathsep}{command.ROOT / 'tests' / 'support'}"}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    with tempfile.TemporaryDirectory() as scratch:
        out, err = Path(scratch) / "out", Path(scratch) / "err"
        task = (script, arguments, str(folder), environment, str(out), str(err))
        process = warm_process.SERVER.Process(target=_begin, args=(largest_file, task), daemon=False)
        process.start()
        try:
            sent = _stop(process, after, by) if after is not None else False
            process.join(timeout)
            late = process.is_alive()
        finally:
            _kill_all(process)
        if late:
            raise subprocess.TimeoutExpired(list(words), timeout)
        assert process.exitcode is not None
        texts = [file.read_text() if file.exists() else "" for file in (out, err)]
    return subprocess.CompletedProcess(list(words), process.exitcode, *texts), sent


def _stop(process: BaseProcess, after: float | Callable[[], bool], by: signal.Signals) -> bool:
    """Send the signal when it is time, and return whether the process was still alive."""
    start = time.monotonic()
    while process.is_alive() and time.monotonic() - start < TIMEOUT:
        if after() if callable(after) else time.monotonic() - start >= after:
            assert process.pid is not None
            os.kill(process.pid, by)
            return True
        process.join(0.005)
    return False


def _kill_all(process: BaseProcess) -> None:
    """End a command and everything that it started, such as the other ranks of a training."""
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # it may not have a group of its own yet
    process.join()


def _begin(largest_file: int | None, task: tuple[str, list[str], str, dict[str, str], str, str]) -> None:
    """Become the command: called in the new process."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a campaign in the background ignores the signal
    if largest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    warm_process._execute(*task)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that they started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended in the meantime
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = [], [pid]
    while queue:
        new = children.get(queue.pop(), [])
        found += new
        queue += new
    return found

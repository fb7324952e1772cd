"""Scripts in processes that need not import torch, Lightning and Hydra again, which takes five seconds each time.

A server imports these packages once and forks a process for each script. A forked process differs from a new one in
that alone: it has its own arguments, environment, folder, outputs and exit status, and signals reach it.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

PRELOADED = [
    "torch",
    "torchmetrics.classification",
    "pytorch_lightning",
    "hydra",
    "joblib",
    "matplotlib.figure",
    "wandb",
]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(PRELOADED)


def run(
    script: str, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a script as `python SCRIPT ARGUMENTS` would, in a process that is forked from the server.

    Args:
        script: path of the script, or "-m" with the module's name as the first argument.
        arguments: of the command line.
        folder: where to run.
        environment: variables of the process.
        timeout: seconds after which the process is killed.

    Raises:
        subprocess.TimeoutExpired: if the process was killed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out, err = Path(scratch) / "out", Path(scratch) / "err"
        task = (script, list(arguments), str(folder), dict(environment), str(out), str(err))
        process = SERVER.Process(target=_execute, args=task, daemon=False)
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired([script, *arguments], timeout)
        assert process.exitcode is not None
        texts = [file.read_text() if file.exists() else "" for file in (out, err)]
    return subprocess.CompletedProcess([script, *arguments], process.exitcode, *texts)


def _execute(script: str, arguments: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    """Become the script: called in the new process."""
    for descriptor, file, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (2, err, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        os.dup2(os.open(file, flags), descriptor)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115  # as Python's own
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    try:
        if script == "-m":
            sys.argv = arguments
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [script, *arguments]
            runpy.run_path(script, run_name="__main__")
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        atexit._run_exitfuncs()  # multiprocessing omits them, and joblib's pool ends in one

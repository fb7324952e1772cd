"""From an exception to one line: full disks, Ctrl-C anywhere in a command, and tracebacks for mistakes in the code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import command
import pytest
import pytorch_lightning as pl
import small
import torch
from hydra.types import RunMode
from pytorch_lightning.utilities.exceptions import SIGTERMException

from sqakd.app.errors import RunFailed, report_errors
from sqakd.app.start import NOTHING_REPLACED
from sqakd.errors import SqakdError
from sqakd.files import WriteError


def raising(error: BaseException) -> float:
    raise error


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_an_error_of_the_environment_is_one_line(code: int) -> None:
    with pytest.raises(SystemExit) as ended:
        report_errors(lambda: raising(OSError(code, os.strerror(code), "here.txt")))
    assert ended.value.code == f"error: here.txt: {os.strerror(code)}"


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "missing"), ValueError("mistake"), KeyError("x")])
def test_a_mistake_in_the_code_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        report_errors(lambda: raising(error))


def test_only_a_training_continues_from_its_checkpoint_after_a_full_disk() -> None:
    error = WriteError("cannot write x", topic="file.full")
    with pytest.raises(SystemExit, match=r"repeat the same command; a training continues from its last checkpoint$"):
        report_errors(lambda: raising(error))
    with pytest.raises(SystemExit, match=r"cannot write x; make room there and repeat the same command$"):
        report_errors(lambda: raising(error), stopped=NOTHING_REPLACED)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("full"), RuntimeError("CUDA out of memory")])
def test_too_little_memory_is_one_line(error: Exception) -> None:
    with pytest.raises(SystemExit, match=r"^error: out of memory; a smaller recipe\.batch_size"):
        report_errors(lambda: raising(error))


def test_a_folder_of_another_run_has_further_advice_in_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    error = SqakdError("runs/a/seed0 holds another run: recipe.lr: 1 -> 2", topic="run.other")
    with pytest.raises(SystemExit) as alone:
        report_errors(lambda: raising(error))
    hydra = Mock(initialized=lambda: True, get=lambda: Mock(mode=RunMode.MULTIRUN))
    monkeypatch.setattr("sqakd.app.errors.HydraConfig", hydra)
    with pytest.raises(RunFailed) as in_sweep:
        report_errors(lambda: raising(error))
    assert str(in_sweep.value).startswith(f"{alone.value.code}; in a sweep, let the name contain")
    assert str(in_sweep.value).endswith("'name=${cell}-lr${recipe.lr}'")


def test_ctrl_c_is_one_line_with_the_status_of_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        report_errors(lambda: raising(KeyboardInterrupt()))
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C; the same command continues\n"


def test_sigterm_has_a_status_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        report_errors(lambda: raising(SIGTERMException()))
    assert ended.value.code == 143
    assert "the state is saved, the same command continues" in capsys.readouterr().err


def test_sigterm_to_several_processes_says_what_is_saved(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        report_errors(lambda: raising(SIGTERMException("no epoch is saved yet")))
    assert ended.value.code == 143
    assert capsys.readouterr().err == "stopped by SIGTERM; no epoch is saved yet, the same command continues\n"


def test_another_exit_stays_as_it_is() -> None:
    with pytest.raises(SystemExit, match="reason"):
        report_errors(lambda: raising(SystemExit("reason")))


class CtrlC(pl.Callback):
    """Raises what Ctrl-C raises."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_in_a_training_is_the_same_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lightning ends the process itself, with another status, and ignores the signal from then on."""
    handler = signal.getsignal(signal.SIGINT)
    task = small.make_task(small.network(), None, "quantizer=none", "recipe.epochs=1", "recipe.batch_size=8")
    try:
        with pytest.raises(SystemExit) as ended:
            report_errors(lambda: float(small.fit(task, tmp_path, callbacks=[CtrlC()]).current_epoch))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert ended.value.code == 130
    assert "stopped by Ctrl-C; the same command continues\n" in capsys.readouterr().err


# Runs a command that gets a signal while it imports a package.
INTERRUPTED_IMPORT = """
import builtins, os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
number, package, script, *_ = sys.argv[1:]
plain = builtins.__import__
def interrupted(name, *arguments, **others):
    if name == package:
        os.kill(os.getpid(), int(number))
    return plain(name, *arguments, **others)
builtins.__import__, sys.argv = interrupted, sys.argv[3:]
if script.endswith(".py"):
    runpy.run_path(script, run_name="__main__")
else:
    runpy.run_module(script, run_name="__main__", alter_sys=True)
"""


def interrupted_import(number: int, package: str, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Return the end of a command that gets a signal when it imports a package."""
    script, *options = script.split()
    script = str(command.ROOT / script) if script.endswith(".py") else script
    arguments = [sys.executable, "-c", INTERRUPTED_IMPORT, str(int(number)), package, script, *options]
    environment = os.environ | {"PYTHONPATH": str(command.ROOT)}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("script", "package"),
    [
        ("train.py", "hydra"),
        ("train.py", "torch"),
        ("train.py", "torchmetrics"),
        ("train.py seed=0,1 -m", "torch"),
        ("export.py", "hydra"),
        ("export.py run=there", "torch"),
        ("sqakd.report", "sqakd.report.write"),
        ("sqakd.dashboard", "yaml"),
        ("sqakd.predict", "onnxruntime"),
    ],
)
def test_ctrl_c_while_packages_are_imported_is_the_same_line(script: str, package: str, tmp_path: Path) -> None:
    done = interrupted_import(signal.SIGINT, package, script, tmp_path)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("stopped by Ctrl-C; ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("script", "package"), [("train.py", "torchmetrics"), ("export.py run=there", "torch")])
def test_sigterm_while_packages_are_imported_leaves_its_line_to_the_shell(
    script: str, package: str, tmp_path: Path
) -> None:
    done = interrupted_import(signal.SIGTERM, package, script, tmp_path)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")

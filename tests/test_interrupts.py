"""Tests of how a command ends: one line for what a user or the system causes, a traceback for a mistake in the code."""

from __future__ import annotations

import errno
import os

import pytest

from sqakd.errors import SqakdError
from sqakd.interrupts import errors_in_one_line


def test_a_command_exits_with_message_and_advice() -> None:
    with (
        pytest.raises(SystemExit, match=r"^error: no finished run; use --runs FOLDER for another folder of runs$"),
        errors_in_one_line(),
    ):
        raise SqakdError("no finished run", topic="report.no_run")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE, errno.EIO])
def test_an_error_of_the_environment_is_one_line(code: int) -> None:
    with pytest.raises(SystemExit) as ended, errors_in_one_line():
        raise OSError(code, os.strerror(code), "here.txt")
    assert ended.value.code == f"error: here.txt: {os.strerror(code)}"


@pytest.mark.parametrize(
    "error", [ValueError("mistake"), FileNotFoundError(errno.ENOENT, "mistake"), OSError("mistake")]
)
def test_a_mistake_in_the_code_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error), match="mistake"), errors_in_one_line():
        raise error


def test_ctrl_c_is_one_line_with_the_status_of_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors_in_one_line():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C; the same command starts again\n"

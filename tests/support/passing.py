"""Errors of reading that pass: a lost disk, a missing permission, too many open files, too little memory."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

PASSING = (
    *(OSError(code, os.strerror(code)) for code in (errno.EACCES, errno.EMFILE, errno.EIO, errno.ESTALE)),
    MemoryError(),
)


def refuse(monkeypatch: pytest.MonkeyPatch, file: Path, error: BaseException) -> None:
    """Let each opening of one file fail; the other files stay readable."""
    open_any, open_path = io.open, Path.open

    def opened(name: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(name, str | os.PathLike) and Path(name) == file:
            raise error
        return open_any(name, *arguments, **options)

    def opened_path(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == file:
            raise error
        return open_path(path, *arguments, **options)

    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr("builtins.open", opened)
    monkeypatch.setattr(Path, "open", opened_path)

"""The files of a training's saved state: the last checkpoint and the last but one."""

from __future__ import annotations

from pathlib import Path

from sqakd.files import is_there


def previous(file: Path) -> Path:
    """Return the path of the last but one checkpoint.

    Example:
        >>> previous(Path("last.ckpt")).name
        'last.previous.ckpt'
    """
    return file.with_name(f"{file.stem}.previous{file.suffix}")


def has_state(file: Path) -> bool:
    """Return whether there is a checkpoint, whole or damaged. A kill may have left only the last but one.

    Raises:
        ReadError: if the system cannot tell.
    """
    return any(map(is_there, (file, previous(file))))

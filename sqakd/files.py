"""Files that appear whole or not at all: each is written under a temporary name and then renamed.

A writer that is killed leaves its temporary file. A living writer holds a lock on its file, and the system releases the
lock when the process ends, however it ends. So the next writer can delete what a dead one left, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":  # Windows has no such locks: files of killed writers stay there
    import fcntl

TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part", re.DOTALL)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` if the block succeeds.

    The temporary file is deleted if the block fails, and those of killed writers of `path` are deleted first. Its name
    is unique, so that several processes can write the same file concurrently.
    """
    remove_abandoned(path.parent, path.name)
    with temporary_for(path, lambda temporary: temporary.touch(exist_ok=False)) as temporary:
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def temporary_for(path: Path, create: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a new temporary file or folder next to `path`, and hold its lock meanwhile.

    Args:
        path: what the temporary file will replace.
        create: makes the file or folder; called again if another process deleted the first one before it was locked.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        create(temporary)
        if sys.platform == "win32":
            yield temporary
            return
        try:
            descriptor = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError):  # a file system without locks: nobody deletes anything there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if temporary.exists():
            break
        os.close(descriptor)
    try:
        yield temporary
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of an existing file or folder if it is free, and yield whether it was."""
    if sys.platform == "win32":
        yield False
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Delete the temporary files that killed writers left in a folder; those of living writers stay.

    Args:
        folder: it need not exist.
        name: of the file that they were written for; None: of any file.
    """
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            match = TEMPORARY.fullmatch(path.name)
            if match is None or name not in (None, match["name"]) or path.is_symlink() or not path.is_file():
                continue
            with contextlib.suppress(OSError), locked(path) as free:
                if free:
                    path.unlink()


def sha256(file: Path) -> str:
    """Return the SHA-256 checksum of a file as hexadecimal text."""
    return hashlib.sha256(file.read_bytes()).hexdigest()

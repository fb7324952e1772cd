"""Files that appear whole or not at all: each is written under a temporary name and then renamed.

A writer that is killed leaves its temporary file. A living writer holds a lock on its file, and the system releases the
lock when the process ends, however it ends. So the next writer can delete what a dead one left, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqakd.errors import SqakdError, is_out_of_memory

if sys.platform != "win32":  # Windows has no such locks: files of killed writers stay there
    import fcntl

TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part", re.DOTALL)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, no quota, or more than the largest file allowed
# Errors of the operating system that are no mistake in the code, wherever they occur: a full or a lost disk, a missing
# permission, too little memory, or too many open files.
ENVIRONMENT = (
    *FULL,
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
)
ABSENT = (errno.ENOENT, errno.ENOTDIR)
# Errors about what is at a path. All others pass, e.g. a lost disk, and say nothing about the file. Parsers of damaged
# bytes seek to positions that are no positions (EINVAL), or raise errors without a number.
ABOUT_FILE = (*ABSENT, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, None)


class WriteError(SqakdError):
    """Raised for a file that cannot be written, because of a full disk, a missing permission or the like."""


class ReadError(SqakdError):
    """Raised for a file that cannot be read at present, because of a lost disk, a missing permission or the like."""


def is_passing(error: BaseException) -> bool:
    """Return whether an error while a file is read says nothing about the file: nobody should delete it."""
    if isinstance(error, OSError):
        return error.errno not in ABOUT_FILE
    return is_out_of_memory(error)


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Name the file and the reason in errors that say nothing about the file; others stay as they are.

    Args:
        path: the file that the block reads.

    Raises:
        ReadError: in place of such an error.
    """
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        if not is_passing(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else "too little memory"
        raise ReadError(f"cannot read {path}: {reason or error}", topic="file.unreadable") from error


def is_there(path: Path) -> bool:
    """Return whether a path has an entry in its folder, also a link to nothing.

    Raises:
        ReadError: if the system cannot tell.
    """
    with read_errors(path):
        try:
            path.lstat()
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            return False
    return True


@contextmanager
def replacing(path: Path, *, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` if the block succeeds.

    The temporary file is deleted if the block fails, and those of killed writers of `path` are deleted first. Its name
    is unique, so that several processes can write the same file concurrently.

    Args:
        path: the file to write.
        size: bytes that will be written, if known, for the message.

    Raises:
        WriteError: if the disk is full, or the file cannot be created or renamed. What had the name before is still
            there.
    """
    remove_abandoned(path.parent, path.name)
    with contextlib.ExitStack() as opened:
        with write_errors(path, size):
            create = temporary_for(path, lambda temporary: temporary.touch(exist_ok=False))
            temporary = opened.enter_context(create)
        with write_errors(path, size, only=FULL):  # the block may also read other files
            try:
                yield temporary
                with write_errors(path, size):
                    temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path, size: int | None = None, *, only: tuple[int, ...] = ()) -> Iterator[None]:
    """Name the file, the reason and the space in errors of the operating system.

    Args:
        path: the file that the block writes.
        size: bytes that will be written, if known.
        only: numbers of the errors that are about this file; empty: all.

    Raises:
        WriteError: in place of such an error.
    """
    try:
        yield
    except OSError as error:
        if only and error.errno not in only:
            raise
        reason = f"cannot write {path}: {error.strerror or error}"
        if error.errno in FULL:
            needed = [] if size is None else [f"{megabytes(size)} needed"]
            with contextlib.suppress(OSError):
                needed.append(f"{megabytes(shutil.disk_usage(path.parent).free)} free")
            raise WriteError(f"{reason} ({', '.join(needed)})", topic="file.full") from error
        raise WriteError(reason, topic="file.unwritable") from error


def megabytes(size: int) -> str:
    """Return a number of bytes as text.

    Example:
        >>> megabytes(1_234_567), megabytes(1200)
        ('1.2 MB', '1.2 kB')
    """
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{size / 1e3:.1f} kB"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically."""
    with replacing(path, size=len(content)) as temporary:
        temporary.write_bytes(content)


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
    with read_errors(file):
        return hashlib.sha256(file.read_bytes()).hexdigest()

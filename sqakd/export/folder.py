"""The folder of an export: replaced in one step, and only if it holds nothing but an earlier export.

On Linux and macOS one system call exchanges the new folder and the old one, so a whole export has the folder's name at
any moment. Where the file system cannot do that, the old folder moves aside for a moment. If the process is killed just
then, the next export puts the old folder back before it begins.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqakd.errors import SqakdError, some
from sqakd.export.errors import ExportError
from sqakd.files import FULL, locked, temporary_for, write_errors
from sqakd.runs.export_record import read_export

# All files that an export writes; any other file belongs to the user. Earlier versions wrote the pictures as PNG.
WRITTEN = {"model.onnx", "model.float.onnx", "weights_int.npz", "layers.json", "record.json"}
WRITTEN |= {"report.md", "report.html", "layers.svg", "latency.svg", "pareto.svg"}
WRITTEN |= {"layers.png", "latency.png", "pareto.png"}
CLUTTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # file managers write these into every folder that is looked at
NOT_COUNTED = ".requantized.onnx"  # a file whose speed is measured, see `sqakd.export.pipeline`
# Files that exist only while an export is written: the benchmark's, and temporary files.
UNFINISHED = re.compile(
    rf"\.float\.pt2|{re.escape(NOT_COUNTED)}|\.({'|'.join(map(re.escape, sorted(WRITTEN)))})\.[0-9a-f]+(\.part)?"
)


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier export.

    Raises:
        ExportError: naming what the folder holds, or if it cannot be read.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise ExportError(f"{folder} is not a folder", topic="export.folder")
    try:
        names = {path.name for path in folder.iterdir()}
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in WRITTEN | CLUTTER or path.is_dir())
    except OSError as error:
        raise ExportError(f"cannot read {folder}: {error.strerror or error}", topic="export.folder") from error
    if foreign:
        raise ExportError(
            f"{folder} holds {some(foreign)}, which no export wrote; nothing there is replaced", topic="export.folder"
        )
    if names - CLUTTER and not _is_export(folder):
        raise ExportError(
            f"{folder} holds {some(sorted(names - CLUTTER))}, but no record of an export; nothing there is replaced",
            topic="export.folder",
        )


@contextmanager
def replacing_folder(folder: Path, *, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` if the block succeeds, and disappears otherwise.

    Args:
        folder: to write.
        size: bytes that will be written, if known, for the message about a full disk.

    Raises:
        ExportError: if the folder cannot be written, or holds anything but an earlier export.
        WriteError: if the disk is full.
    """
    place = folder.resolve()  # a name for "." and "..", and the folder itself behind a symbolic link
    absent = [parent for parent in place.parents if not parent.exists()]
    try:
        _recover(place)
        check_folder(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        with write_errors(folder, size, only=FULL), temporary_for(place, Path.mkdir) as temporary:
            try:
                yield temporary
                check_folder(folder)  # again, because the block may have taken minutes
                _put(temporary, place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ExportError(f"cannot write {folder}: {error.strerror or error}", topic="export.folder") from error
    finally:
        with contextlib.suppress(OSError):  # stops at the first parent that is not empty: the export is there
            for parent in absent:
                parent.rmdir()


def _is_export(folder: Path) -> bool:
    """Return whether a folder has the record of an export."""
    try:
        return read_export(folder / "record.json") is not None
    except SqakdError:
        return False


def _put(temporary: Path, place: Path) -> None:
    """Give a finished folder its name. What had the name before is deleted, or has it again after an error."""
    if not place.exists() or not any(place.iterdir()):
        temporary.rename(place)  # also replaces an empty folder, in one step
    elif not exchange(temporary, place):
        old = temporary.with_suffix(".old")
        with locked(place):  # so that no other export takes `old` for that of a killed process
            place.rename(old)
            try:
                temporary.rename(place)
            finally:
                if not place.exists():
                    old.rename(place)
        shutil.rmtree(old, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; return False where the system cannot."""
    if sys.platform == "win32":
        return False
    library = ctypes.CDLL(None)
    names = os.fsencode(one), os.fsencode(other)
    if hasattr(library, "renameat2"):  # Linux
        here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        return bool(library.renameat2(here, names[0], here, names[1], swap) == 0)
    if hasattr(library, "renamex_np"):  # macOS; 2 is RENAME_SWAP
        return bool(library.renamex_np(*names, 2) == 0)
    return False


def _recover(place: Path) -> None:
    """Put an export back that a killed process had moved aside, and delete the other folders of killed processes.

    Earlier versions called these folders .NAME.PID and .NAME.PID.old. A folder with any other file is left alone: it is
    no export's, whatever its name.
    """
    pattern = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]+(\.part|\.old)?")
    if not place.parent.is_dir():
        return
    left = [path for path in place.parent.iterdir() if pattern.fullmatch(path.name)]
    left = [path for path in left if path.is_dir() and not path.is_symlink()]
    for path in sorted(left, key=lambda path: path.stat().st_mtime, reverse=True):
        with contextlib.suppress(OSError), locked(path) as free:
            names = {entry.name for entry in path.iterdir()} - WRITTEN - CLUTTER
            if not free or not all(UNFINISHED.fullmatch(name) for name in names):
                continue
            if path.suffix != ".old" or not _is_export(path) or _is_export(place):
                shutil.rmtree(path, ignore_errors=True)
            elif not os.path.lexists(place):
                path.rename(place)

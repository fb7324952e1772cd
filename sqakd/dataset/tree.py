"""A common interface for a folder of files and for a folder inside a zip archive."""

from __future__ import annotations

import threading
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from sqakd.dataset.errors import DataError
from sqakd.image_files import HIDDEN, is_hidden, list_files


class Tree(ABC):
    """The files below one folder.

    Attributes:
        facts: for each file, by its path from the folder with slashes: its length, and the time of its last change or
            its checksum.
        left_out: hidden files, broken links and the like, by the reason. They are not among the files.
    """

    facts: dict[str, tuple[int, int]]
    left_out: dict[str, list[Path]]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of one file. Threads may call this method concurrently."""

    @abstractmethod
    def path(self, name: str) -> str:
        """Return a file's full path for a message."""

    @abstractmethod
    def close(self) -> None:
        """Release open files. Nothing is read afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class FolderTree(Tree):
    """An unpacked folder.

    Args:
        folder: path of the folder.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder
        found = list_files(folder)
        self.left_out = found.left_out
        self.facts = {
            path.relative_to(folder).as_posix(): (status.st_size, status.st_mtime_ns) for path, status in found.files
        }

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def close(self) -> None:
        """Do nothing: no file is open between two reads."""


class ZipTree(Tree):
    """A folder inside a zip archive.

    Args:
        archive: path of the zip file.
        folder: name of the folder inside the archive.

    Raises:
        DataError: if the archive cannot be read.
    """

    def __init__(self, *, archive: Path, folder: str) -> None:
        self.archive, self.folder = archive, folder
        try:
            self.zip = zipfile.ZipFile(archive)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{archive} cannot be read as a zip archive: {error}") from error
        self.lock = threading.Lock()  # ZipFile counts its open readers without a lock
        entries = [entry for entry in self.zip.infolist() if not entry.is_dir()]
        inside = {e.filename.removeprefix(f"{folder}/"): e for e in entries if e.filename.startswith(f"{folder}/")}
        hidden = {name for name in inside if any(map(is_hidden, name.split("/")))}
        self.left_out = {HIDDEN: [Path(name) for name in sorted(hidden)]} if hidden else {}
        self.facts = {name: (e.file_size, e.CRC) for name, e in inside.items() if name not in hidden}

    def read(self, name: str) -> bytes:
        with self.lock:
            return self.zip.read(f"{self.folder}/{name}")

    def path(self, name: str) -> str:
        return f"{self.archive}/{self.folder}/{name}"

    def close(self) -> None:
        self.zip.close()

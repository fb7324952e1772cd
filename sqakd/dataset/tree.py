"""A folder of files, unpacked or still in its zip archive, read in the same way."""

from __future__ import annotations

import os
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from sqakd.dataset.errors import DataError


class Tree(ABC):
    """Files below one folder.

    Attributes:
        facts: by path from the folder, with slashes: each file's length, and the time of its last change or its
            checksum.
    """

    facts: dict[str, tuple[int, int]]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """One file; may be called from many threads."""

    @abstractmethod
    def path(self, name: str) -> str:
        """Where a user finds it."""

    @abstractmethod
    def close(self) -> None:
        """Nothing is read from here on."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class FolderTree(Tree):
    """An unpacked folder.

    Args:
        folder: where it is.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder
        self.facts = {name: (facts.st_size, facts.st_mtime_ns) for name, facts in _files(str(folder), "")}

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def close(self) -> None:
        """There is nothing open."""


class ZipTree(Tree):
    """A folder inside an archive.

    Args:
        archive: the zip file.
        folder: inside it.
    """

    def __init__(self, *, archive: Path, folder: str) -> None:
        self.archive, self.folder = archive, folder
        try:
            self.zip = zipfile.ZipFile(archive)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{archive} cannot be read as a zip archive: {error}") from error
        self.lock = threading.Lock()  # a ZipFile counts its readers without one
        entries = [entry for entry in self.zip.infolist() if not entry.is_dir()]
        self.facts = {
            entry.filename.removeprefix(f"{folder}/"): (entry.file_size, entry.CRC)
            for entry in entries
            if entry.filename.startswith(f"{folder}/")
        }

    def read(self, name: str) -> bytes:
        with self.lock:
            return self.zip.read(f"{self.folder}/{name}")

    def path(self, name: str) -> str:
        return f"{self.archive}/{self.folder}/{name}"

    def close(self) -> None:
        self.zip.close()


def _files(folder: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file():
                yield f"{prefix}{entry.name}", entry.stat()

"""Archives of public data sets: downloaded only on request, and used only if their checksum is right."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from torchvision.datasets.utils import calculate_md5, download_url

from sqakd.dataset.errors import DataError
from sqakd.files import replacing

NAMED = 5  # names of files in a message


@dataclass(frozen=True)
class Archive:
    """The archive of one data set.

    Attributes:
        dataset: name of the data set, for messages.
        file: path of the archive.
        folder: name of the folder in the archive; unpacked next to the archive, it is used without the archive.
        url: address for the download.
        md5: checksum of the intact archive.
        download: whether a missing archive may be downloaded.
    """

    dataset: str
    file: Path
    folder: str
    url: str
    md5: str
    download: bool

    def require(self, *, layout: str = "") -> None:
        """Refuse an archive that is missing and may not be downloaded.

        Args:
            layout: content of the unpacked folder, for the message.

        Raises:
            DataError: if the archive is refused.
        """
        if not self.file.exists() and not self.download:
            root, content = self.file.parent.resolve(), f" ({layout})" if layout else ""
            raise DataError(
                f"{self.dataset} is not in {root}: found {_found(root)} there, expected the file {self.file.name} or"
                f" the folder {self.folder}/{content}",
                topic="data.missing",
            )

    @contextmanager
    def access(self) -> Iterator[None]:
        """Report errors of the file system as a DataError that names the data set and its folder."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"cannot use {self.file.parent.resolve()} for {self.dataset}: {error}", topic="data.root"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the archive's folder and hold its lock: many ranks and jobs may want the archive concurrently."""
        with self.access():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.file}.lock"):
                yield

    def fetch(self) -> None:
        """Verify the archive, or download it if it is missing. The caller holds the lock.

        Raises:
            DataError: if the download fails, or if the existing archive is damaged.
        """
        if self.file.exists():
            self.verify()
            return
        try:
            with replacing(self.file) as temporary, contextlib.redirect_stdout(io.StringIO()):
                download_url(self.url, str(temporary.parent), temporary.name, self.md5)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"cannot download {self.url} to {self.file.resolve()}: {error}", topic="data.download"
            ) from error

    def verify(self) -> None:
        """Refuse an archive whose checksum is wrong.

        Raises:
            DataError: if the archive is refused.
        """
        if difference := wrong_checksum(self.file, self.md5):
            raise DataError(
                f"{self.file} is truncated or altered, or was packed again: {difference}",
                topic="data.archive",
                folder=f"{self.folder}/",
                root=self.file.parent,
            )


def wrong_checksum(file: Path, md5: str) -> str | None:
    """Return a file's size and checksum with the expected checksum, for a message; None if the checksum is right."""
    found = calculate_md5(str(file))
    if found == md5:
        return None
    return f"{file.stat().st_size:,} bytes with MD5 {found}, expected MD5 {md5}"


def _found(folder: Path) -> str:
    """Return the first names in a folder, for a message."""
    if not folder.is_dir():
        return "no folder"
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (", ".join(names[:NAMED]) or "nothing") + more

"""Archives of public data sets: downloaded only on request, and used only if their checksum is right."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from torchvision.datasets.utils import check_integrity, download_url

from sqakd.dataset.errors import DataError
from sqakd.files import replacing


@dataclass(frozen=True)
class Archive:
    """The archive of one data set.

    Attributes:
        dataset: name of the data set, for messages.
        file: path of the archive.
        url: address for the download.
        md5: checksum of the intact archive.
        download: whether a missing archive may be downloaded.
    """

    dataset: str
    file: Path
    url: str
    md5: str
    download: bool

    def require(self, *, folder: str) -> None:
        """Refuse an archive that is missing and may not be downloaded.

        Args:
            folder: the unpacked folder that would do as well, for the message.

        Raises:
            DataError: if the archive is refused.
        """
        if not self.file.exists() and not self.download:
            raise DataError(
                f"{self.dataset} is not in {self.file.parent.resolve()}: expected the file {self.file.name} or the"
                f" folder {folder} there",
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
        if not check_integrity(str(self.file), self.md5):
            raise DataError(
                f"{self.file} is truncated or altered: its checksum is not {self.md5}", topic="data.archive"
            )

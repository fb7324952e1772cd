"""Archives from the net: fetched only when asked, believed only with the right checksum."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from torchvision.datasets.utils import check_integrity, download_url

from sqakd.dataset.errors import DataError


def fetch(archive: Path, *, url: str, md5: str) -> None:
    """Make sure that `archive` is there and intact: downloaded unless there is one. The caller holds its lock.

    Raises:
        DataError: if it cannot be downloaded, or if the one that is there is not the right one.
    """
    if archive.exists():
        verify(archive, md5=md5)
        return
    part = archive.with_name(f".{archive.name}.part")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            download_url(url, str(archive.parent), part.name, md5)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"cannot download {url} to {archive.resolve()}: {error}; put the file there yourself"
        ) from error
    part.replace(archive)


def verify(archive: Path, *, md5: str) -> None:
    """Refuse an archive that is not the one its checksum names."""
    if not check_integrity(str(archive), md5):
        raise DataError(
            f"{archive} is truncated or altered (its checksum is not {md5}): delete it and"
            f" type dataset.download=true, or put an intact copy there"
        )

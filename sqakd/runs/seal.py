"""Checksums in files of torch.save: a file that was cut short or changed by one bit is found before it is used.

`torch.load` looks at no checksum, so that a flipped bit becomes another number in a tensor. Checkpoints of this project
end in the SHA-256 of all bytes before it: one file, so content and checksum appear together. Readers of ZIP archives,
among them torch's, skip what follows the archive. Files without such an end, e.g. of earlier versions or of other
programs, have at least the CRC-32 of each part that every ZIP archive has.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from sqakd.files import is_passing

MARK = b"\nsqakd sha256 "
LENGTH = len(MARK) + 64
ZIP = b"PK\x03\x04"  # first bytes of an archive
CHUNK = 1 << 20
DIRECTORY = 0x10  # attribute of an entry: torch then reads nothing, and leaves the tensor as it was allocated


class DamagedError(Exception):
    """Raised for a file whose checksum differs from its content. The message does not contain the file's name."""


def sealed(content: Any) -> memoryview:
    """Return the bytes of torch.save, followed by their checksum."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    buffer.write(MARK + digest.encode())
    return buffer.getbuffer()


def check_seal(file: Path) -> None:
    """Compare a file with the checksums in it; a file in torch's old format has none.

    Raises:
        DamagedError: if one of them differs, or the archive is not whole.
        OSError: if the file cannot be read.
    """
    with file.open("rb") as opened:
        is_zip = opened.read(len(ZIP)) == ZIP
        length = opened.seek(0, io.SEEK_END)
        opened.seek(max(length - LENGTH, 0))
        end = opened.read()
        if end.startswith(MARK):
            opened.seek(0)
            hasher, left = hashlib.sha256(), length - LENGTH
            while left > 0:
                part = opened.read(min(CHUNK, left))
                if not part:
                    raise DamagedError("it was cut short while it was read")
                hasher.update(part)
                left -= len(part)
            if hasher.hexdigest().encode() != end.removeprefix(MARK):
                raise DamagedError("its checksum differs from its content")
        elif is_zip:
            _check_archive(opened)


def _check_archive(opened: Any) -> None:
    """Compare all parts of an archive with their CRC-32.

    Raises:
        DamagedError: if one differs, or the archive's directory is damaged.
        OSError: if the file cannot be read.
    """
    try:
        with zipfile.ZipFile(opened) as archive:
            entries = archive.infolist()
            bad = [entry for entry in entries if entry.external_attr & DIRECTORY or not _intact(archive, entry)]
    except Exception as error:  # a damaged directory names parts that are nowhere, with any length and method
        if is_passing(error):
            raise
        raise DamagedError("it is not a whole archive") from error
    # torch has an option to write no checksums: then all differ, except those of empty parts.
    some_fit = any(entry.file_size > 0 and entry not in bad for entry in entries)
    if bad and (some_fit or len(entries) == 1):
        raise DamagedError(f"the checksum of its part {bad[0].filename} differs")


def _intact(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(entry) as part:
            while part.read(CHUNK):
                pass
    except zipfile.BadZipFile:
        return False
    return True

"""Limits for data from a file: a value that refers to itself, or is nested too deep, would never end or end Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sqakd.errors import SqakdError
from sqakd.files import megabytes

DEEPEST = 50  # levels; those of a configuration are about eight
MOST = 100_000  # values; YAML can repeat a value so often that nine short lines become a billion of them
LARGEST = 16_000_000  # bytes of a file; the largest records have some hundred thousand


def read_limited(file: Path) -> str:
    """Return the text of a small file.

    Raises:
        SqakdError: if the file is larger than any that this project writes.
        OSError: if it cannot be read.
        UnicodeDecodeError: if it is not UTF-8.
    """
    if (size := file.stat().st_size) > LARGEST:
        raise SqakdError(f"it has {megabytes(size)}, expected at most {megabytes(LARGEST)}")
    return file.read_text(encoding="utf-8")


def check_plain(value: object) -> None:
    """Refuse decoded data that other functions cannot walk through.

    Raises:
        SqakdError: if the value is nested too deep, which it also is if it contains itself, or has too many values.
    """
    left, count = [(value, 0)], 0
    while left:
        value, depth = left.pop()
        count += 1
        if depth > DEEPEST:
            raise SqakdError(f"it is nested more than {DEEPEST} levels deep, or contains itself")
        if count > MOST:
            raise SqakdError(f"it has more than {MOST} values")
        inside = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
        left += [(inner, depth + 1) for inner in inside]

"""Markdown files with markers: the lines between two markers are replaced by a table, all others stay.

<!-- report:digits16-summary -->
<!-- /report -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sqakd.errors import SqakdError

START = re.compile(r"<!-- report:(\S+) -->")
END = "<!-- /report -->"


def read_markdown(file: Path) -> str:
    """Return the text of a Markdown file.

    Raises:
        SqakdError: if the file cannot be read or is not UTF-8; it is named.
    """
    try:
        with file.open(encoding="utf-8", newline="") as opened:  # line ends stay as they are
            return opened.read()
    except (OSError, UnicodeDecodeError) as error:
        raise SqakdError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


def names(text: str) -> list[str]:
    """Return the names of the tables that a text asks for.

    Raises:
        SqakdError: if a start marker has no end, or an end marker no start.
    """
    return [name for name, _, _ in _blocks(text.split("\n"))]


def fill(text: str, tables: Mapping[str, str], *, skip_unknown: bool = False) -> str:
    """Return a text with tables between its markers; filling it a second time changes nothing.

    Args:
        text: the Markdown text.
        tables: Markdown tables by the name in the marker.
        skip_unknown: whether the lines of a name without a table are left as they are.

    Raises:
        SqakdError: if there is no marker, a marker has no counterpart, or a name is unknown.
    """
    lines = text.split("\n")  # not at other characters, such as a form feed, which are part of the text
    end_of_line = "\r" if lines[0].endswith("\r") else ""
    blocks = list(_blocks(lines))
    if not blocks:
        raise SqakdError(
            f"no marker: expected <!-- report:NAME --> and {END}, each on its own line; NAME is {_table_names(tables)}"
        )
    for name, start, end in reversed(blocks):
        if name in tables:
            table = ["", *tables[name].strip().splitlines(), ""]
            lines[start + 1 : end] = [line + end_of_line for line in table]
        elif not skip_unknown:
            raise SqakdError(f"line {start + 1}: no table {name!r}; expected one of {_table_names(tables)}")
    return "\n".join(lines)


def _blocks(lines: list[str]) -> Iterator[tuple[str, int, int]]:
    """Yield name, first and last line of each block; markers in a code fence do not count."""
    name, start, fenced = "", -1, False
    for i, line in enumerate(lines):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if fenced:
            continue
        found = START.fullmatch(line.strip())
        if found and start >= 0:
            break
        if found:
            name, start = found[1], i
        elif line.strip() == END:
            if start < 0:
                raise SqakdError(f"line {i + 1}: {END} without <!-- report:NAME --> above it")
            yield name, start, i
            start = -1
    if start >= 0:
        raise SqakdError(f"line {start + 1}: <!-- report:{name} --> without {END} below it")


def _table_names(tables: Mapping[str, str]) -> str:
    return ", ".join(sorted(tables))

"""Tables between markers of a Markdown file; everything else in it stays as it is.

<!-- report:digits16-summary -->
<!-- /report -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

START = re.compile(r"<!-- report:(\S+) -->")
END = "<!-- /report -->"


def names(text: str) -> list[str]:
    """What a file asks for.

    Raises:
        ValueError: if a marker is not closed, or closed without one.
    """
    return [name for name, _, _ in _blocks(text.splitlines())]


def fill(text: str, tables: Mapping[str, str], *, skip_unknown: bool = False) -> str:
    """Put tables between their markers. Doing so again changes nothing.

    Args:
        text: of the file.
        tables: Markdown by the name that a marker gives.
        skip_unknown: whether a name without a table leaves its block as it is.

    Raises:
        ValueError: if there is no marker, one is not closed, or a name is unknown.
    """
    lines = text.splitlines()
    blocks = list(_blocks(lines))
    if not blocks:
        raise ValueError(f"no marker: type <!-- report:NAME --> and {END}, each on a line; NAME is {_choices(tables)}")
    for name, start, end in reversed(blocks):
        if name in tables:
            lines[start + 1 : end] = ["", *tables[name].strip().splitlines(), ""]
        elif not skip_unknown:
            raise ValueError(f"line {start + 1}: no table {name!r}; there is {_choices(tables)}")
    return "\n".join(lines) + ("\n" if text.endswith("\n") else "")


def _blocks(lines: list[str]) -> Iterator[tuple[str, int, int]]:
    """Name, first and last line of each block; what stands in a code fence is no marker."""
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
                raise ValueError(
                    f"line {i + 1}: {END} closes nothing; type <!-- report:NAME --> above it, or remove it"
                )
            yield name, start, i
            start = -1
    if start >= 0:
        raise ValueError(f"line {start + 1}: <!-- report:{name} --> is not closed; type {END} below it")


def _choices(tables: Mapping[str, str]) -> str:
    return ", ".join(sorted(tables))

"""A way to train has one name, one colour and one marker, the same in every picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqakd.report.records import Cell

COLOURS = 8
FIRST = ("none", "sqakd", "squat")  # keep theirs, whatever else was run


def method(cell: Cell) -> str:
    """How a cell was trained: its kd, and what else differs."""
    return f"{cell.kd} ({cell.changes})" if cell.changes else cell.kd


def slots(cells: Iterable[Cell]) -> dict[str, int]:
    """A number for each method, which colours and markers are counted by.

    >>> slots([Cell("d", "m", "q", 2, 2, kd) for kd in ("squat", "kd", "dist")])
    {'none': 0, 'sqakd': 1, 'squat': 2, 'dist': 3, 'kd': 4}
    """
    others = sorted({method(cell) for cell in cells} - set(FIRST))
    return {name: slot for slot, name in enumerate([*FIRST, *others])}


def by_slot(names: Iterable[str], known: Mapping[str, int]) -> list[str]:
    """Methods in the order of their slots."""
    return sorted(names, key=lambda name: known[name])


def long_name(name: str) -> str:
    """As a legend says it."""
    return "none (labels alone)" if name == "none" else name

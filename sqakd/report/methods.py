"""Training methods: each has one name, one colour and one marker in all pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqakd.report.cells import Cell

FIRST = ("none", "sqakd", "squat")  # always have the same numbers, whatever else was run


def method(cell: Cell) -> str:
    """Return the name of a cell's training method: its kd with add-ons, who chose the bits, and its changes."""
    name = f"{cell.kd}, bits=auto" if cell.chosen_bits else cell.kd
    return f"{name} ({cell.changes})" if cell.changes else name


def slots(cells: Iterable[Cell]) -> dict[str, int]:
    """Return a number for each method, which gives its colour and its marker.

    >>> slots([Cell("d", "m", "q", 2, 2, kd) for kd in ("squat", "kd", "dist")])
    {'none': 0, 'sqakd': 1, 'squat': 2, 'dist': 3, 'kd': 4}
    """
    others = sorted({method(cell) for cell in cells} - set(FIRST))
    return {name: slot for slot, name in enumerate([*FIRST, *others])}


def by_slot(names: Iterable[str], known: Mapping[str, int]) -> list[str]:
    """Return methods in the order of their numbers."""
    return sorted(names, key=lambda name: known[name])


def long_name(name: str) -> str:
    """Return the name of a method in a legend.

    >>> long_name('none'), long_name('none (quantizer.start="mse")')
    ('none (labels alone)', 'none (labels alone, quantizer.start="mse")')
    """
    kd, _, changes = name.partition(" (")
    if kd != "none":
        return name
    return f"none (labels alone, {changes}" if changes else "none (labels alone)"

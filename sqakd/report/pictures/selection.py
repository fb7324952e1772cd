"""Cells of the results as the pictures need them: by network, by bits, and with their float run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqakd.report.cells import Cell
from sqakd.report.results import Results

UNITS = {"top1": "top-1 %", "agreement": "agreement %"}


def main_score(cells: Iterable[Cell], results: Results) -> str:
    """Return "top1", or "agreement" if no run of the cells was evaluated with labels."""
    runs = (run for cell in cells for run in results.cells[cell])
    return "top1" if any("top1" in run.record.scores for run in runs) else "agreement"


def quantized(results: Results) -> dict[tuple[str, str], list[Cell]]:
    """Return the quantized cells by network: data set and model."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in results.cells:
        if not cell.is_float:
            found.setdefault(cell.network, []).append(cell)
    return found


def chart_title(
    network: tuple[str, str], networks: Sequence[object] | Mapping[tuple[str, str], object], *names: str
) -> str:
    """Return the title of a chart; the network is part of it only if there are several."""
    return " ".join([*(network if len(networks) > 1 else ()), *names])


def bits_in_order(cells: Iterable[Cell]) -> list[str]:
    """Return the names of the bit widths, the narrowest first."""
    return [name for *_, name in sorted({(cell.w_bits, cell.a_bits, cell.bits) for cell in cells})]


def float_line(results: Results, network: tuple[str, str], score: str) -> tuple[float, str] | None:
    """Return the mean last score of a network's float runs, and a tooltip for it; None without such a run.

    Float runs with changed values do not count.
    """
    for cell, runs in results.cells.items():
        values = [value for run in runs if (value := run.score(score, "last")) is not None]
        if cell.is_float and cell.network == network and not cell.changes and values:
            mean = sum(values) / len(values)
            return mean, f"float run: {mean:.2f} ({len(values)})"
    return None

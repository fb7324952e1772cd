"""Cells of the results as the pictures need them: by network, by bits, and with their float run."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqakd.report.cells import Cell
from sqakd.report.comparisons import scores
from sqakd.report.results import FinishedRun, Results

UNITS = {"top1": "top-1 %", "agreement": "agreement %"}


@dataclass(frozen=True)
class Group:
    """Cells that share charts: those of one network that were evaluated with labels, or those that were not.

    Attributes:
        network: data set and model.
        score: "top1", or "agreement" where no run was evaluated with labels.
    """

    network: tuple[str, str]
    score: str

    def title(self, groups: Iterable[Group], *names: str) -> str:
        """Return the title of a chart; it names network and score only where the groups differ in them."""
        known = list(groups)
        title = chart_title(self.network, {group.network for group in known}, *names)
        differ = len({group.score for group in known}) > 1
        return title + ", agreement" * (differ and self.score == "agreement")


def main_score(runs: Iterable[FinishedRun]) -> str:
    """Return "top1", or "agreement" if no run was evaluated with labels."""
    return "top1" if any("top1" in run.record.scores for run in runs) else "agreement"


def by_score(results: Results, cells: Iterable[Cell]) -> dict[Group, list[Cell]]:
    """Return those of the cells that have their main score, by group."""
    found: dict[Group, list[Cell]] = {}
    for cell in cells:
        score = main_score(results.cells[cell])
        if scores(results.cells[cell], score, "last"):
            found.setdefault(Group(cell.network, score), []).append(cell)
    return found


def quantized(results: Results) -> dict[tuple[str, str], list[Cell]]:
    """Return the quantized cells by network: data set and model."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in quantized_cells(results):
        found.setdefault(cell.network, []).append(cell)
    return found


def quantized_cells(results: Results) -> list[Cell]:
    """Return the quantized cells."""
    return [cell for cell in results.cells if not cell.is_float]


def chart_title(network: tuple[str, str], networks: Collection[tuple[str, str]], *names: str) -> str:
    """Return the title of a chart; the network is part of it only if there are several."""
    return " ".join([*(network if len(networks) > 1 else ()), *names])


def listed(descriptions: Iterable[str]) -> str:
    """Return descriptions of what a picture shows as the beginning of its caption.

    >>> listed(["Top-1", "No labels: agreement"])
    'Top-1; no labels: agreement'
    """
    first, *others = descriptions
    return "; ".join([first, *(other[:1].lower() + other[1:] for other in others)])


def bits_in_order(cells: Iterable[Cell]) -> list[str]:
    """Return the names of the bit widths, the narrowest first."""
    return [name for *_, name in sorted({(cell.w_bits, cell.a_bits, cell.bits) for cell in cells})]


def float_line(
    results: Results, network: tuple[str, str], score: str, students: Iterable[Cell]
) -> tuple[float, str] | None:
    """Return the mean last score of a network's float runs in percent, and a tooltip; None if it is not known.

    Float runs with changed values do not count. If there are no others, the float runs count from which the students
    started: their records contain its scores.

    Args:
        results: all runs.
        network: data set and model.
        score: e.g. "top1".
        students: the cells that are compared with the float run.
    """
    unchanged = (c for c in results.cells if c.is_float and c.network == network and not c.changes)
    values = next((found for cell in unchanged if (found := scores(results.cells[cell], score, "last"))), [])
    if not values:
        starts = [run.record.float_run for cell in students for run in results.cells[cell]]
        last = {(f.name, f.seed): 100 * f.scores[score].last for f in starts if f and score in f.scores}
        values = list(last.values())
    if not values:
        return None
    mean = sum(values) / len(values)
    return mean, f"float run: {mean:.2f} ({len(values)})"

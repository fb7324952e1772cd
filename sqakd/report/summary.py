"""The shortest answers: one table of all scores by way to train, and how often each is told apart from labels alone."""

from __future__ import annotations

from collections.abc import Sequence

from sqakd.report.methods import by_slot, method, slots
from sqakd.report.records import Cell, Results
from sqakd.report.rows import Row, row
from sqakd.report.statistics import mean_std
from sqakd.report.tables import EMPTY, Table, show

SIGNS = {"better": " ▲", "worse": " ▼", "not told apart": " ="}
SIGNS_LEGEND = (
    "Top-1 in percent, last epoch: mean ± standard deviation (n seeds). Beside labels alone (none): ▲ better, ▼ worse,"
    " beyond two standard errors of the difference; = not told apart; no sign: a single seed, or no spread."
)


def grid_table(results: Results, network: tuple[str, str]) -> Table:
    """One network: a line for each quantizer and bits, a column for each way to train."""
    known = slots(results.cells)
    cells = [cell for cell in results.cells if cell.network == network and cell.bits != "float"]
    columns = by_slot({method(cell) for cell in cells}, known)
    lines: dict[tuple[object, ...], dict[str, Cell]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.quantizer, cell.w_bits, cell.a_bits)):
        lines.setdefault((cell.quantizer, cell.bits), {})[method(cell)] = cell
    texts = [
        [*map(str, line), *(_entry(row(results, found[name])) if name in found else EMPTY for name in columns)]
        for line, found in lines.items()
    ]
    links = [{2 + i: found[name] for i, name in enumerate(columns) if name in found} for found in lines.values()]
    cells = [next(iter(found.values())) for found in lines.values()]
    return Table(["quantizer", "bits", *columns], texts, cells, links)


def _entry(row: Row) -> str:
    difference = row.to_labels("last")
    score = row.ours("top1", "last")
    return show(score) + ("" if difference is None else SIGNS.get(difference.verdict, ""))


def tally_table(rows: Sequence[Row]) -> Table:
    """For each way to train, how often it is told apart from labels alone, last epoch."""
    found: dict[str, list[Row]] = {}
    for line in rows:
        if line.to_labels("last") is not None:
            found.setdefault(method(line.cell), []).append(line)
    texts = []
    ordered = by_slot(found, slots(line.cell for line in rows))
    for name in ordered:
        some = found[name]
        differences = [d for line in some if (d := line.to_labels("last")) is not None]
        verdicts = [d.verdict for d in differences]
        counts = [str(verdicts.count(word)) for word in ("better", "not told apart", "worse", "-")]
        mean, _ = mean_std([d.value for d in differences])
        texts.append([name, str(len(some)), *counts, f"{mean:+.2f}"])
    header = ["kd", "cells", "better", "not told apart", "worse", "no verdict", "mean difference, points"]
    return Table(header, texts, [found[name][0].cell for name in ordered])

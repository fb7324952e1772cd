"""The shortest tables: scores by training method, and how often a method is distinguishable from labels alone."""

from __future__ import annotations

from collections.abc import Sequence

from sqakd.report.cells import Cell
from sqakd.report.comparisons import Comparison, comparison
from sqakd.report.methods import by_slot, method, slots
from sqakd.report.result_tables import show_last
from sqakd.report.results import Results, shared_changes
from sqakd.report.statistics import BETTER, NO_VERDICT, NOT_DISTINGUISHABLE, WORSE, mean_std
from sqakd.report.table import EMPTY, Table
from sqakd.runs.record import changes_text
from sqakd.terminal import printable

SHARED_TITLE = "Values that all quantized runs of a network share"
SIGNS = {BETTER: " ▲", WORSE: " ▼", NOT_DISTINGUISHABLE: " ="}
SIGNS_LEGEND = (
    "Top-1 in percent, last epoch: mean ± standard deviation (number of seeds). Compared with labels alone (none): ▲"
    " better, ▼ worse, beyond two standard errors of the difference; = not distinguishable; no sign: a single seed, or"
    " seeds that all came out equal. Agreement: share of equal predictions of student and teacher, for runs without"
    " labels."
)


def grid_table(results: Results, network: tuple[str, str]) -> Table:
    """Return the scores of one network: a row for each quantizer and bits, a column for each training method."""
    known = slots(results.cells)
    cells = [cell for cell in results.cells if cell.network == network and not cell.is_float]
    columns = by_slot({method(cell) for cell in cells}, known)
    rows: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.quantizer, cell.w_bits, cell.a_bits)):
        rows.setdefault((cell.quantizer, cell.bits), {})[method(cell)] = cell
    texts = [
        [*names, *(_score(comparison(results, found[name])) if name in found else EMPTY for name in columns)]
        for names, found in rows.items()
    ]
    links = [{2 + i: found[name] for i, name in enumerate(columns) if name in found} for found in rows.values()]
    cells = [next(iter(found.values())) for found in rows.values()]
    return Table(["quantizer", "bits", *columns], texts, cells, links)


def shared_table(results: Results) -> Table:
    """Return the changed values that all quantized runs of a network share, for networks of no published table."""
    found = shared_changes(results, published=False)
    rows = [[*network, printable(changes_text(values))] for network, values in found.items()]
    return Table(["data", "model", "changed"], rows)


def _score(line: Comparison) -> str:
    difference = line.to_labels("last")
    return show_last(line) + ("" if difference is None else SIGNS.get(difference.verdict, ""))


def tally_table(lines: Sequence[Comparison]) -> Table:
    """Return how often each training method is better or worse than labels alone, last epoch."""
    found: dict[str, list[Comparison]] = {}
    for line in lines:
        if line.to_labels("last") is not None:
            found.setdefault(method(line.cell), []).append(line)
    texts = []
    ordered = by_slot(found, slots(line.cell for line in lines))
    for name in ordered:
        differences = [d for line in found[name] if (d := line.to_labels("last")) is not None]
        verdicts = [d.verdict for d in differences]
        counts = [str(verdicts.count(word)) for word in (BETTER, NOT_DISTINGUISHABLE, WORSE, NO_VERDICT)]
        mean, _ = mean_std([d.value for d in differences])
        texts.append([name, str(len(found[name])), *counts, f"{mean:+.2f}"])
    header = ["kd", "cells", BETTER, NOT_DISTINGUISHABLE, WORSE, "no verdict", "mean difference, points"]
    return Table(header, texts, [found[name][0].cell for name in ordered])

"""Tables of runs: next to published numbers, without any, and each training method compared with labels alone."""

from __future__ import annotations

from collections.abc import Sequence

from sqakd.report.cells import Cell
from sqakd.report.comparisons import Comparison
from sqakd.report.results import AGGREGATES
from sqakd.report.significance import holm
from sqakd.report.statistics import Difference, mean_std
from sqakd.report.table import CELL_COLUMNS, EMPTY, Table

# Marks of published numbers by their source; the paper's own numbers have none.
FOOTNOTES = {"second-hand": "¹", "re-run": "²"}
RELEASED_NOTE = "³"
AGGREGATE_NAMES = {"last": "last", "best": "best", "mean_of_last_5": "mean of last 5"}
LEGEND = (
    "Top-1 in percent; mean ± standard deviation (number of seeds). Last: last epoch. Mean of last 5: mean of the last"
    " five epochs. Best: best epoch on the validation images. For CIFAR and Tiny-ImageNet these are the test images, as"
    " in the paper, so the best epoch may only be compared with the paper. Drop: last epoch of the cell's own float run"
    " minus ours."
)
PAPER_LEGEND = (
    " Difference: our last epoch minus the published number. Its standard error (se) is that of our runs alone, because"
    " no standard deviation was published. A dash: no run of this cell, or no published number. ¹ Quoted by another"
    " publication. ² Re-run by another publication. ³ Published for the same cell without _released."
)
LABELS_LEGEND = (
    "Our top-1 minus that of the same network, quantizer and bits trained from labels alone, in points, with the"
    " standard error (se) over the seeds of both sides. The column labels names the cell that is compared with: if"
    " labels were not run with the same add-ons, it has none, and the difference includes the effect of the add-ons."
    " Better or worse: beyond two standard errors; a single seed, which has no standard error, and seeds that all came"
    " out equal have no verdict. p: two-sided, of Welch's t test; in parentheses after Holm's correction for all cells"
    " shown. All seeds share one teacher and one set of validation images, so standard error and p are about the"
    " student's seeds alone. With three seeds on each side, chance alone exceeds two standard errors in one of nine to"
    " one of five comparisons; with two seeds, more often."
)


def show(values: Sequence[float]) -> str:
    """Return mean ± standard deviation (number of values).

    >>> show([90.0, 92.0, 94.0]), show([90.0]), show([])
    ('92.00 ± 2.00 (3)', '90.00 (1)', '-')
    """
    if not values:
        return EMPTY
    mean, std = mean_std(values)
    return f"{mean:.2f} ± {std:.2f} ({len(values)})" if len(values) > 1 else f"{mean:.2f} (1)"


def show_last(line: Comparison) -> str:
    """Return the last top-1 of a cell, or its agreement with the teacher if no run was evaluated with labels."""
    top1, agreement = line.ours("top1", "last"), line.ours("agreement", "last")
    return f"agreement {show(agreement)}" if agreement and not top1 else show(top1)


def show_difference(difference: Difference | None) -> str:
    """Return a difference with its standard error, if there is one."""
    if difference is None:
        return EMPTY
    error = difference.standard_error
    return f"{difference.value:+.2f}" + ("" if error is None else f" (se {error:.2f})")


def verdict(difference: Difference | None) -> str:
    """Return the verdict of a difference; a dash without a difference."""
    return EMPTY if difference is None else difference.verdict


def show_p(p: float | None, corrected: float | None) -> str:
    """Return a probability, with its value after Holm's correction in parentheses.

    >>> show_p(0.01324, 0.43691), show_p(None, None)
    ('0.013 (0.44)', '-')
    """
    return EMPTY if p is None or corrected is None else f"{p:.2g} ({corrected:.2g})"


def last_ps(lines: Sequence[Comparison]) -> list[tuple[float | None, float | None]]:
    """Return for each comparison with labels alone, last epoch: p, and p after Holm's correction for all lines."""
    ps = [None if (found := line.to_labels("last")) is None else found.p for line in lines]
    return list(zip(ps, holm(ps), strict=True))


def paper_table(lines: Sequence[Comparison]) -> Table:
    """Return one of the published tables with our numbers next to it."""
    header = [*CELL_COLUMNS, "paper", "ours, last", "ours, mean of last 5", "ours, best", "difference", "verdict"]
    header += ["drop from float, last", "paper, top-5", "ours, top-5", "epochs"]
    rows = [
        [
            *cell_fields(line.cell),
            _published(line, "top1"),
            show_last(line),
            show(line.ours("top1", "mean_of_last_5")),
            show(line.ours("top1", "best")),
            show_difference(line.to_paper),
            verdict(line.to_paper),
            show(line.drops),
            _published(line, "top5"),
            show(line.ours("top5", "last")),
            line.epochs or EMPTY,
        ]
        for line in lines
    ]
    cells = [line.cell for line in lines]
    return Table(header, rows, cells).without_empty(("changed",), ("paper, top-5", "ours, top-5"))


def own_table(lines: Sequence[Comparison]) -> Table:
    """Return a table of runs without published numbers."""
    header = [*CELL_COLUMNS, "last", "mean of last 5", "best", "drop from float, last"]
    header += ["agreement with the teacher, last", "before training", "kB", "epochs"]
    rows = [
        [
            *cell_fields(line.cell),
            show(line.ours("top1", "last")),
            show(line.ours("top1", "mean_of_last_5")),
            show(line.ours("top1", "best")),
            show(line.drops),
            show(line.ours("agreement", "last")),
            show(line.untrained),
            f"{line.packed_bytes / 1000:.1f}",
            line.epochs,
        ]
        for line in lines
    ]
    return Table(header, rows, [line.cell for line in lines]).without_empty(("changed",), ("before training",))


def labels_table(lines: Sequence[Comparison]) -> Table:
    """Return the comparisons with labels alone; a table without rows if nothing can be compared."""
    header = [*CELL_COLUMNS, "labels", "n, n labels"]
    for aggregate in AGGREGATES:
        name = AGGREGATE_NAMES[aggregate]
        header += [f"{name}: difference", f"{name}: verdict"]
    header.append("last: p (Holm)")
    rows, cells = [], []
    for line, ps in zip(lines, last_ps(lines), strict=True):
        differences = [line.to_labels(aggregate) for aggregate in AGGREGATES]
        first = differences[0]
        if first is None or line.labels is None:
            continue
        fields = [field for d in differences for field in (show_difference(d), verdict(d))]
        rows.append([*cell_fields(line.cell), line.labels.kd, f"{first.n}, {first.n_base}", *fields, show_p(*ps)])
        cells.append(line.cell)
    return Table(header, rows, cells).without_empty(("changed",))


def cell_fields(cell: Cell) -> list[str]:
    """Return the names of a cell, one for each of `CELL_COLUMNS`."""
    return [cell.dataset, cell.model, cell.quantizer, cell.bits, cell.kd, cell.changes]


def _published(line: Comparison, score: str) -> str:
    number = line.paper(score)
    if number is None or line.published is None:
        return EMPTY
    note = "" if line.cell == line.cell.published_cell else RELEASED_NOTE
    return f"{number:.2f}{FOOTNOTES.get(line.published.source, '')}{note}"

"""Tables to be read: the paper's number beside ours, ours alone, and each loss against labels alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqakd.report.records import KINDS, Cell
from sqakd.report.rows import Row
from sqakd.report.statistics import Difference, mean_std

EMPTY = "-"
# How published numbers were come by; the rest are the paper's own.
FOOTNOTES = {"second-hand": "¹", "re-run": "²", "not published": ""}
RELEASED_NOTE = "³"
KIND_NAMES = {"last": "last", "best": "best", "mean_of_last_5": "mean of last 5"}
LEGEND = (
    "Top-1 in percent. Last: last epoch. Best: best epoch on the validation images, which for CIFAR and Tiny-ImageNet"
    " are the test images, as in the paper; so it is too good to compare with anything but the paper. Mean of last 5:"
    " of the last five epochs. Mean ± standard deviation (n seeds). Drop: the last epoch of the row's own float run"
    " minus ours."
)
PAPER_LEGEND = (
    " Difference: ours, last epoch, minus paper, with the standard error (se) of ours alone, because nobody published"
    " the paper's. A dash is a cell that nobody has run, or a number that we do not have. ¹ As quoted by somebody else."
    " ² Another paper's re-run, not SQAKD's own cell. ³ The number of the paper's cell without _released."
)
LABELS_LEGEND = (
    "The same network, quantizer and bits, trained from labels alone: ours minus that, in points of top-1, with the"
    " standard error (se) over both sides' seeds. The column labels names the base: where labels were not run with the"
    " same additions (plus), it is labels without them, and the difference is that of the whole stack. Better or"
    " worse only beyond two standard errors; a single seed has no standard error, and no verdict. All"
    " seeds see the same validation images. With three seeds a side, chance alone"
    " goes beyond two standard errors in one comparison of nine to one of five; with two, more often."
)
NAMES = ("data", "model", "quantizer", "bits", "kd", "changed")


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        header: of the columns.
        rows: one text for each column.
        cells: what each row is about.
        links: for each row, what a column is about, where that differs; empty if nowhere.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    cells: Sequence[Cell]
    links: Sequence[Mapping[int, Cell]] = ()

    def without_empty(self, *groups: Sequence[str]) -> Table:
        """Leave out each group of columns that are all empty."""
        columns = {name: {row[i] for row in self.rows} for i, name in enumerate(self.header)}
        gone = {name for group in groups if all(columns[n] <= {"", EMPTY} for n in group) for name in group}
        kept = [i for i, name in enumerate(self.header) if name not in gone]
        return Table([self.header[i] for i in kept], [[row[i] for i in kept] for row in self.rows], self.cells)


def show(values: Sequence[float]) -> str:
    """mean ± std (n).

    >>> show([90.0, 92.0, 94.0]), show([90.0]), show([])
    ('92.00 ± 2.00 (3)', '90.00 (1)', '-')
    """
    if not values:
        return EMPTY
    mean, std = mean_std(values)
    return f"{mean:.2f} ± {std:.2f} ({len(values)})" if len(values) > 1 else f"{mean:.2f} (1)"


def show_difference(difference: Difference | None) -> str:
    """Value with its standard error, where there is one."""
    if difference is None:
        return EMPTY
    error = difference.standard_error
    return f"{difference.value:+.2f}" + ("" if error is None else f" (se {error:.2f})")


def verdict(difference: Difference | None) -> str:
    """In a word."""
    return EMPTY if difference is None else difference.verdict


def paper_table(rows: Sequence[Row]) -> Table:
    """One of the paper's tables."""
    header = [*NAMES, "paper", "ours, last", "ours, mean of last 5", "ours, best", "difference", "verdict"]
    header += ["drop from float, last", "paper, top-5", "ours, top-5", "epochs"]
    lines = [
        [
            *names(row.cell),
            _published(row, "top1"),
            show(row.ours("top1", "last")),
            show(row.ours("top1", "mean_of_last_5")),
            show(row.ours("top1", "best")),
            show_difference(row.to_paper),
            verdict(row.to_paper),
            show(row.drops),
            _published(row, "top5"),
            show(row.ours("top5", "last")),
            row.epochs or EMPTY,
        ]
        for row in rows
    ]
    return Table(header, lines, [row.cell for row in rows]).without_empty(("changed",), ("paper, top-5", "ours, top-5"))


def own_table(rows: Sequence[Row]) -> Table:
    """A table of ours alone."""
    header = [*NAMES, "last", "mean of last 5", "best", "drop from float, last", "agreement with the teacher, last"]
    header += ["kB", "epochs"]
    lines = [
        [
            *names(row.cell),
            show(row.ours("top1", "last")),
            show(row.ours("top1", "mean_of_last_5")),
            show(row.ours("top1", "best")),
            show(row.drops),
            show(row.ours("agreement", "last")),
            f"{row.runs[0].record.packed_bytes / 1000:.1f}",
            row.epochs,
        ]
        for row in rows
    ]
    return Table(header, lines, [row.cell for row in rows]).without_empty(("changed",))


def labels_table(rows: Sequence[Row]) -> Table:
    """Each loss against labels alone, where both were run; empty where nothing was."""
    header = [*NAMES, "labels", "n, n labels"]
    for kind in KINDS:
        header += [f"{KIND_NAMES[kind]}: difference", f"{KIND_NAMES[kind]}: verdict"]
    lines, cells = [], []
    for row in rows:
        differences = [row.to_labels(kind) for kind in KINDS]
        first = differences[0]
        if first is None or row.labels is None:
            continue
        numbers = [text for d in differences for text in (show_difference(d), verdict(d))]
        lines.append([*names(row.cell), row.labels.kd, f"{first.n}, {first.n_base}", *numbers])
        cells.append(row.cell)
    return Table(header, lines, cells).without_empty(("changed",))


def as_markdown(table: Table) -> str:
    """A Markdown table."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    escaped = ([text.replace("|", "\\|") for text in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def names(cell: Cell) -> list[str]:
    """What a cell is about, in the columns of `NAMES`."""
    return [cell.dataset, cell.model, cell.quantizer, cell.bits, cell.kd, cell.changes]


def told_apart(rows: Iterable[Row], kind: str) -> tuple[int, int]:
    """How many comparisons with labels alone have a verdict beyond two standard errors, and how many there are."""
    found = [difference for row in rows if (difference := row.to_labels(kind)) is not None]
    return sum(d.verdict in ("better", "worse") for d in found), len(found)


def _published(row: Row, score: str) -> str:
    number = row.paper(score)
    if number is None or row.published is None:
        return EMPTY
    note = "" if row.cell == row.cell.published else RELEASED_NOTE
    return f"{number:.2f}{FOOTNOTES.get(row.published.source, '')}{note}"

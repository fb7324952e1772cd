"""Lines of the tables: a cell with the paper's number, our runs, and the runs with labels alone that it is held to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqakd.report.records import Cell, Finished, Results
from sqakd.report.statistics import Difference, difference, difference_to_published
from sqakd.runs.paper import RELEASED, PaperRow

LABELS, LABELS_MATCHED = "none", "none_matched"


@dataclass(frozen=True)
class Row:
    """A line of a table: published, ours, or both.

    Attributes:
        published: a line of paper.csv.
        runs: ours, one for each seed.
        labels: the cell of labels alone that it is held to (`labels_alone`); None if nobody has run it.
        labels_runs: its runs.
    """

    cell: Cell
    published: PaperRow | None
    runs: Sequence[Finished]
    labels: Cell | None = None
    labels_runs: Sequence[Finished] = ()

    def paper(self, score: str) -> float | None:
        """The published number, in percent."""
        if self.published is None:
            return None
        number = {"top1": self.published.top1, "top5": self.published.top5}[score]
        return None if number is None else float(number)

    def ours(self, score: str, kind: str) -> list[float]:
        """One score of each seed, in percent."""
        return scores(self.runs, score, kind)

    @property
    def drops(self) -> list[float]:
        """Of each seed, its float run's last top-1 minus its own, in points."""
        return [100 * drop for run in self.runs if (drop := run.record.drop_from_float) is not None]

    @property
    def to_paper(self) -> Difference | None:
        """Ours, last epoch, minus the published top-1."""
        return difference_to_published(self.ours("top1", "last"), self.paper("top1"))

    def to_labels(self, kind: str) -> Difference | None:
        """Ours minus labels alone, both top-1 of the same kind."""
        return difference(self.ours("top1", kind), scores(self.labels_runs, "top1", kind))

    @property
    def epochs(self) -> str:
        return " ".join(str(epochs) for epochs in sorted({run.record.epochs for run in self.runs}))


def scores(runs: Iterable[Finished], score: str, kind: str) -> list[float]:
    """One score of each run that has it, in percent."""
    found = (run.score(score, kind) for run in runs)
    return [value for value in found if value is not None]


def labels_alone(cell: Cell, ours: Mapping[Cell, Sequence[Finished]]) -> Cell | None:
    """The finished cell that learns from labels alone and is otherwise the same; None if there is none.

    What a cell adds (`plus`) is to be on both sides; where labels were not run with it, the base is labels without it.
    A loss of the released scripts amounts to another learning rate, so it is held to labels at that rate if they were
    run.
    """
    kd, plus, added = cell.kd.partition("+")
    at_that_rate = kd.endswith(RELEASED) or kd == LABELS_MATCHED
    bases = [LABELS_MATCHED, LABELS] if at_that_rate else [LABELS]
    if kd in bases and not added:
        return None
    stacked = [] if kd in bases else [base + plus + added for base in bases]
    wanted = [*stacked, *bases]
    return next((base for kd in wanted if (base := replace(cell, kd=kd)) in ours), None)


def row(results: Results, cell: Cell, published: PaperRow | None = None) -> Row:
    """The line of one cell."""
    labels = labels_alone(cell, results.cells)
    return Row(cell, published, results.cells.get(cell, ()), labels, results.cells[labels] if labels else ())


def paper_rows(results: Results, table: str) -> list[Row]:
    """Lines of one of the paper's tables: its cells, also those nobody has run, then what else its networks did."""
    paper = results.paper[table]
    networks = {cell.network for cell in paper}
    extra = [cell for cell in results.cells if cell.network in networks and cell not in paper]
    return [row(results, cell, paper[cell]) for cell in paper] + [
        row(results, cell, paper.get(cell.published)) for cell in sorted(extra, key=lambda cell: cell.order)
    ]


def own_rows(results: Results, cells: Iterable[Cell]) -> list[Row]:
    """Lines of a table of ours alone."""
    return [row(results, cell) for cell in sorted(cells, key=lambda cell: cell.order)]


def unpublished(results: Results) -> dict[str, list[Cell]]:
    """Finished cells of networks that no table of the paper has, by data set."""
    published = {cell.network for cells in results.paper.values() for cell in cells}
    rest = [cell for cell in results.cells if cell.network not in published]
    return {dataset: [c for c in rest if c.dataset == dataset] for dataset in sorted({c.dataset for c in rest})}

"""Comparisons of a cell: our runs with the published number, and with the same cell trained from labels alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from sqakd.report.cells import Cell, with_method
from sqakd.report.results import FinishedRun, Results
from sqakd.report.statistics import Difference, difference, difference_to_published
from sqakd.runs.paper import RELEASED, PaperRow

LABELS, LABELS_MATCHED = "none", "none_matched"


@dataclass(frozen=True)
class Comparison:
    """One line of a table: a cell with what is published, what we ran, or both.

    Attributes:
        cell: the cell.
        published: the published number, or None.
        runs: our runs, one for each seed.
        labels: the finished cell that it is compared with as "labels alone" (`labels_alone`); None if there is none.
        labels_runs: the runs of that cell.
    """

    cell: Cell
    published: PaperRow | None
    runs: Sequence[FinishedRun]
    labels: Cell | None = None
    labels_runs: Sequence[FinishedRun] = ()

    def paper(self, score: str) -> float | None:
        """Return the published top1 or top5, in percent."""
        if self.published is None:
            return None
        number = {"top1": self.published.top1, "top5": self.published.top5}[score]
        return None if number is None else float(number)

    def ours(self, score: str, aggregate: str) -> list[float]:
        """Return a score of each seed, in percent."""
        return scores(self.runs, score, aggregate)

    @property
    def packed_bytes(self) -> float:
        """The size of the network; the seeds differ only where a budget chose other bits for each."""
        return mean(run.record.packed_bytes for run in self.runs)

    @property
    def bit_operations(self) -> float:
        """The bit-operations of one image, in the same way."""
        return mean(run.record.bit_operations for run in self.runs)

    @property
    def untrained(self) -> list[float]:
        """The top-1 of each seed after calibration, before any training, in percent."""
        found = (run.record.top1_before_training for run in self.runs)
        return [100 * value for value in found if value is not None]

    @property
    def drops(self) -> list[float]:
        """For each seed, the last top-1 of its float run minus its own, in points."""
        return [100 * drop for run in self.runs if (drop := run.record.drop_from_float) is not None]

    @property
    def to_paper(self) -> Difference | None:
        """Our last top-1 minus the published one."""
        return difference_to_published(self.ours("top1", "last"), self.paper("top1"))

    def to_labels(self, aggregate: str) -> Difference | None:
        """Return our top-1 minus that of labels alone."""
        return difference(self.ours("top1", aggregate), scores(self.labels_runs, "top1", aggregate))

    @property
    def epochs(self) -> str:
        """The numbers of epochs of the runs."""
        return " ".join(str(epochs) for epochs in sorted({run.record.epochs for run in self.runs}))


def scores(runs: Iterable[FinishedRun], score: str, aggregate: str) -> list[float]:
    """Return a score of each run that has it, in percent."""
    found = (run.score(score, aggregate) for run in runs)
    return [value for value in found if value is not None]


def labels_alone(cell: Cell, ours: Mapping[Cell, Sequence[FinishedRun]]) -> Cell | None:
    """Return the finished cell that was trained from labels alone and is otherwise the same; None if there is none.

    Add-ons should be on both sides. If labels were not run with the same add-ons, the base is labels without add-ons.
    The losses of the released scripts amount to another learning rate, so they are compared with labels at that rate
    (`kd=none_matched`) if those were run. Changed values of the loss, and of add-ons that the base lacks, may be on one
    side only.
    """
    kd, _, added = cell.kd.partition("+")
    at_that_rate = kd.endswith(RELEASED) or kd == LABELS_MATCHED
    bases = [LABELS_MATCHED, LABELS] if at_that_rate else [LABELS]
    methods = [(base, "") for base in bases]
    if kd in bases and not added:
        methods = [(kd, "")]  # the same labels, if values of the loss were changed
    elif added and kd not in bases:
        methods = [(base, added) for base in bases] + methods
    found = (base for method in methods for base in _bases(cell, *method, ours) if base in ours and base != cell)
    return next(found, None)


def _bases(cell: Cell, kd: str, add_ons: str, ours: Mapping[Cell, Sequence[FinishedRun]]) -> Iterator[Cell]:
    """Yield the cells of another method to compare a cell with: with all its changed values, then without the method's.

    Where one command overrides a value of several losses, the cells of all of them have that change.
    """
    yield replace(cell, kd="+".join(filter(None, [kd, add_ons])))
    if runs := ours.get(cell):
        yield with_method(runs[0].record, kd, add_ons)


def comparison(results: Results, cell: Cell, published: PaperRow | None = None) -> Comparison:
    """Return the comparison of one cell."""
    labels = labels_alone(cell, results.cells)
    return Comparison(cell, published, results.cells.get(cell, ()), labels, results.cells[labels] if labels else ())


def paper_comparisons(results: Results, table: str) -> list[Comparison]:
    """Return the lines of a published table: all its cells, then our other cells with the same networks."""
    paper = results.paper[table]
    networks = {cell.network for cell in paper}
    extra = [cell for cell in results.cells if cell.network in networks and cell not in paper]
    return [comparison(results, cell, paper[cell]) for cell in paper] + [
        comparison(results, cell, paper.get(cell.published_cell)) for cell in sorted(extra, key=lambda cell: cell.order)
    ]


def own_comparisons(results: Results, cells: Iterable[Cell]) -> list[Comparison]:
    """Return the lines of a table without published numbers."""
    return [comparison(results, cell) for cell in sorted(cells, key=lambda cell: cell.order)]


def unpublished(results: Results) -> dict[str, list[Cell]]:
    """Return the finished cells whose network is in no published table, by data set."""
    published = {cell.network for cells in results.paper.values() for cell in cells}
    rest = [cell for cell in results.cells if cell.network not in published]
    return {dataset: [c for c in rest if c.dataset == dataset] for dataset in sorted({c.dataset for c in rest})}

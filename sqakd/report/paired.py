"""Each training without labels compared with SQAKD, seed by seed.

Two runs of one seed draw the same random numbers in each epoch, so a difference is taken for each seed. The differences
of the seeds are the sample: their mean, its standard error, and Student's t test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqakd.report.cells import STARTS, Cell, with_method
from sqakd.report.methods import method
from sqakd.report.result_tables import cell_fields, show_difference, show_p, verdict
from sqakd.report.results import FinishedRun
from sqakd.report.significance import holm, permutation_p
from sqakd.report.statistics import Difference, mean_std, paired_difference
from sqakd.report.table import CELL_COLUMNS, EMPTY, Table

SQAKD = "sqakd"
SAME_START, PAPER_START = SQAKD, f"{SQAKD}, ranges of the paper"

PAIRED_TITLE = "Without labels, compared with SQAKD"
PAIRED_LEGEND = (
    "Difference from SQAKD (kd=sqakd without add-ons) with the same network, quantizer, bits and other values except"
    " those of the loss and its add-ons, in points, last epoch: the mean over the seeds that both have, with its"
    " standard error (se). SQAKD starts from the same ranges, or from those of the quantizer's paper. Better or"
    " worse: beyond two standard errors; equal differences of all seeds have no verdict. p: two-sided, of Student's t"
    " test of the differences of the seeds; with several quantizers together, of the exact test that changes their"
    " signs, as if runs of one seed with different quantizers were independent. In parentheses: p after Holm's"
    " correction for the rows of the table. All seeds share one teacher and one set of validation images. With three"
    " seeds, chance alone exceeds two standard errors in one of five comparisons."
)


@dataclass(frozen=True)
class Pair:
    """A cell and the SQAKD cell that it is compared with.

    Attributes:
        cell: trained without labels.
        base: name of the SQAKD cell.
        runs: for each seed that both have, the cell's run and that of SQAKD.
    """

    cell: Cell
    base: str
    runs: Sequence[tuple[FinishedRun, FinishedRun]]

    def scores(self, name: str) -> list[tuple[float, float]]:
        """Return both last scores of each seed that has them, in percent."""
        found = ([run.score(name, "last") for run in pair] for pair in self.runs)
        return [(ours, base) for ours, base in found if ours is not None and base is not None]

    def difference(self, name: str) -> Difference | None:
        """Return the mean difference of a score; None if no seed has it on both sides."""
        return paired_difference(self.scores(name))


def pairs(cells: Mapping[Cell, Sequence[FinishedRun]]) -> list[Pair]:
    """Return the comparisons of all quantized cells that were trained without labels, in the order of the cells."""
    by_key = {cell.key: runs for cell, runs in cells.items()}
    found = []
    for cell in sorted(cells, key=lambda cell: cell.order):
        if cell.is_float or not all(run.record.labels_used is False for run in cells[cell]):
            continue
        for name, base in _bases(cells[cell][0]).items():
            others = {run.seed: run for run in by_key.get(base.key, ()) if base.key != cell.key}
            both = [(run, others[run.seed]) for run in cells[cell] if run.seed in others]
            if both:
                found.append(Pair(cell, name, both))
    return found


def _bases(run: FinishedRun) -> dict[str, Cell]:
    """Return the SQAKD cells to compare a run with, by name: from the same ranges, and from those of the paper."""
    papers = {key: value for key, value in run.record.changes.items() if key not in STARTS}
    bases = {SAME_START: run.record, PAPER_START: replace(run.record, changes=papers)}
    cells = {name: with_method(record, SQAKD, "") for name, record in bases.items()}
    return cells if cells[PAPER_START] != cells[SAME_START] else {SAME_START: cells[SAME_START]}


def paired_table(found: Sequence[Pair]) -> Table:
    """Return a row for each comparison, of top-1 and of the agreement with the teacher."""
    top1 = [pair.difference("top1") for pair in found]
    ps = [None if difference is None else difference.p for difference in top1]
    rows = []
    for pair, difference, p, corrected in zip(found, top1, ps, holm(ps), strict=True):
        agreement = pair.difference("agreement")
        fields = [show_difference(difference), verdict(difference), show_p(p, corrected)]
        fields += [show_difference(agreement), verdict(agreement)]
        rows.append([*cell_fields(pair.cell), pair.base, str(len(pair.runs)), *fields])
    header = [*CELL_COLUMNS, "compared with", "n", "top-1", "top-1: verdict", "top-1: p (Holm)"]
    return Table([*header, "agreement", "agreement: verdict"], rows, [pair.cell for pair in found]).without_empty(
        ("changed",), ("top-1", "top-1: verdict", "top-1: p (Holm)")
    )


def paired_together(found: Iterable[Pair]) -> Table:
    """Return a row for each network, bits and method with at least two quantizers, all their seeds together.

    Each seed of each quantizer has the same weight.
    """
    groups: dict[tuple[str, ...], list[Pair]] = defaultdict(list)
    for pair in found:
        groups[(*pair.cell.network, pair.cell.bits, method(pair.cell), pair.base)].append(pair)
    several = {name: group for name, group in sorted(groups.items()) if len({p.cell.quantizer for p in group}) > 1}
    columns = []
    for score in ("top1", "agreement"):
        scores = [[seeds for pair in group for seeds in pair.scores(score)] for group in several.values()]
        ps = [permutation_p([([ours], [base]) for ours, base in seeds]) if seeds else None for seeds in scores]
        columns += [[_mean(seeds) for seeds in scores], list(map(show_p, ps, holm(ps)))]
    rows = []
    for i, (name, group) in enumerate(several.items()):
        counts = [str(len({pair.cell.quantizer for pair in group})), str(sum(len(pair.runs) for pair in group))]
        rows.append([*name, *counts, *(column[i] for column in columns)])
    header = ["data", "model", "bits", "kd", "compared with", "quantizers", "n", "top-1", "top-1: p (Holm)"]
    table = Table([*header, "agreement", "agreement: p (Holm)"], rows)
    return table.without_empty(("top-1", "top-1: p (Holm)"))


def paired_tables(cells: Mapping[Cell, Sequence[FinishedRun]]) -> list[Table]:
    """Return the comparisons of each quantizer, and of all together; none of them without rows."""
    found = pairs(cells)
    return [table for table in (paired_table(found), paired_together(found)) if table.rows]


def _mean(seeds: Sequence[tuple[float, float]]) -> str:
    return f"{mean_std([ours - base for ours, base in seeds])[0]:+.2f}" if seeds else EMPTY

"""The test whether a training method differs from labels alone over all quantizers of a network together.

A few seeds of one cell are seldom enough for a verdict. All quantizers at the same bits are stronger evidence together,
and one result for each method needs less correction for the number of comparisons than one for each cell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqakd.report.cells import Cell
from sqakd.report.comparisons import LABELS, Comparison, scores
from sqakd.report.methods import method
from sqakd.report.result_tables import AGGREGATE_NAMES, show_p
from sqakd.report.significance import holm, permutation_p
from sqakd.report.statistics import mean_std
from sqakd.report.table import Table

ALL = "all without labels"
POOLED_TITLE = "All quantizers together, compared with labels alone"
POOLED_LEGEND = (
    "Our top-1 minus that of labels alone, in points: the mean over the quantizers, each with the same weight. p: exact"
    " stratified permutation test, two-sided. If the method has no effect, each assignment of a quantizer's runs to the"
    " two sides is equally likely; p is the share of the joint assignments whose difference is at least as large. In"
    f" parentheses: p after Holm's correction for the rows shown. The row {ALL!r} has the runs of all methods that read"
    " no label and are compared with kd=none. All seeds share one teacher and one set of validation images, so p says"
    " nothing about other teachers or other images."
)

Group = tuple[str, str, int, int, str, str]  # data set, model, bits (weights, activations, name), training method
Sides = tuple[list[float], Sequence[float]]  # scores of our runs and of labels alone


def pooled_table(lines: Iterable[Comparison]) -> Table:
    """Return a row for each network, bits and training method with at least two quantizers, compared with labels alone.

    The table has no rows if there is no such method.
    """
    groups = [(name, found) for name, found in sorted(_groups(lines).items()) if len(_strata(found, "last")) > 1]
    header = ["data", "model", "bits", "kd", "quantizers", "n, n labels"]
    columns: list[list[str]] = []
    for aggregate, name in AGGREGATE_NAMES.items():
        header += [f"{name}: difference", f"{name}: p (Holm)"]
        strata = [_strata(found, aggregate) for _, found in groups]
        ps = [permutation_p(sides) for sides in strata]
        columns += [[_difference(sides) for sides in strata], list(map(show_p, ps, holm(ps)))]
    rows = []
    for i, ((dataset, model, _, _, bits, kd), found) in enumerate(groups):
        sides = _strata(found, "last")
        counts = ", ".join(str(sum(len(side) for side in part)) for part in zip(*sides, strict=True))
        fields = [dataset, model, bits, kd, str(len(sides)), counts]
        rows.append([*fields, *(column[i] for column in columns)])
    return Table(header, rows)


def _groups(lines: Iterable[Comparison]) -> dict[Group, list[Comparison]]:
    """Return the lines of each row: those of one training method, or of all methods that read no label."""
    groups: dict[Group, list[Comparison]] = defaultdict(list)
    for line in lines:
        cell = line.cell
        if line.labels is None or line.to_labels("last") is None:
            continue
        names = [method(cell)]
        # One base for each quantizer: labels with add-ons are the base of methods with the same add-ons only.
        if line.labels.kd == LABELS and all(run.record.labels_used is False for run in line.runs):
            names.append(method(replace(cell, kd=ALL)))
        for name in names:
            groups[(*cell.network, cell.w_bits, cell.a_bits, cell.bits, name)].append(line)
    several = {group for group, found in groups.items() if len({method(line.cell) for line in found}) > 1}
    return {group: found for group, found in groups.items() if not group[-1].startswith(ALL) or group in several}


def _strata(lines: Iterable[Comparison], aggregate: str) -> list[Sides]:
    """Return our scores and those of labels alone for each cell that was trained from labels alone."""
    strata: dict[Cell | None, Sides] = {}
    for line in lines:
        base = scores(line.labels_runs, "top1", aggregate)
        strata.setdefault(line.labels, ([], base))[0].extend(line.ours("top1", aggregate))
    return list(strata.values())


def _difference(strata: Sequence[Sides]) -> str:
    return f"{mean_std([mean_std(ours)[0] - mean_std(base)[0] for ours, base in strata])[0]:+.2f}"

"""Everything that the report reads from disk: finished runs by cell, exports, and published numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqakd.errors import SqakdError
from sqakd.report.cells import STARTS, Cell, cell_of, paper_cell
from sqakd.report.csv_files import Numbers, read_curve, read_quantizers
from sqakd.runs.export_record import ExportRecord, read_exports
from sqakd.runs.folder import RunFolder
from sqakd.runs.listing import Omit, omitting, read_finished, strictly
from sqakd.runs.paper import PaperRow, read_paper
from sqakd.runs.record import Record

# Each score of a run is aggregated over its epochs in three ways; these are the fields of `sqakd.runs.record.Score`.
AGGREGATES = ("last", "best", "mean_of_last_5")
Network = tuple[str, str]  # data set and model
Found = tuple[RunFolder, Record]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        folder: folder of the run.
        record: its record.
        curve: rows of metrics.csv, one per epoch; empty if there is no such file.
        quantizers: rows of the last epoch in quantizers.csv, one per layer and tensor; only the first seed of a cell
            has them.
    """

    folder: Path
    record: Record
    curve: Numbers
    quantizers: Numbers

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.record.seed

    def score(self, name: str, aggregate: str) -> float | None:
        """Return a score in percent; None if the run has no such score.

        Args:
            name: e.g. "top1".
            aggregate: one of `AGGREGATES`.
        """
        score = self.record.scores.get(name)
        return None if score is None else 100 * float(getattr(score, aggregate))


@dataclass(frozen=True)
class Results:
    """Everything read from disk.

    Attributes:
        cells: finished runs of each cell, sorted by seed.
        paper: published numbers: table -> cell -> line of paper.csv.
        exports: records of exported files.
    """

    cells: Mapping[Cell, Sequence[FinishedRun]]
    paper: Mapping[str, Mapping[Cell, PaperRow]]
    exports: Sequence[ExportRecord]

    @property
    def runs(self) -> list[FinishedRun]:
        """All runs."""
        return [run for runs in self.cells.values() for run in runs]


def read_results(runs: Iterable[Path], paper: Path | None = None, *, omit: Omit = strictly) -> Results:
    """Read all finished runs below some folders.

    Args:
        runs: folders of runs, as runs/NAME/seed0/record.json. If the same cell and seed is there several times, the
            first folder of runs counts, and in it the run that has the name of its cell, or else the first name.
        paper: paper.csv, or None to read no published numbers.
        omit: takes the error of a damaged file; the run, its curve or its export is left out. It also takes an error
            for each run that does not count, except copies, and for each folder with the record of another seed.

    Raises:
        SqakdError: if a folder has no finished run, or a file cannot be read; it is named.
    """
    folders = list(runs)
    cells = _read_cells(folders, omit)
    exports = [record for folder in folders for record in read_exports(folder, omit)]
    return Results(cells, {} if paper is None else _paper_tables(paper), exports)


def shared_changes(results: Results, *, published: bool) -> dict[Network, dict[str, Any]]:
    """Return for each network the changed values that all its quantized runs share; nothing where they share none.

    Where ranges start is not among them: it is a part of the method, and PACT has other keys for it than the others.

    Args:
        results: everything read.
        published: whether to include networks of published tables. Without its changes, a run of them would look like
            the published cell.
    """
    kept = () if published else {cell.network for cells in results.paper.values() for cell in cells}
    changes: dict[Network, list[Mapping[str, Any]]] = defaultdict(list)
    for cell, runs in results.cells.items():
        if not cell.is_float and cell.network not in kept:
            changes[cell.network] += [run.record.changes for run in runs]
    shared = {
        network: {
            key: value
            for key, value in first.items()
            if key not in STARTS and all((key, value) in some.items() for some in rest)
        }
        for network, (first, *rest) in changes.items()
    }
    return {network: values for network, values in shared.items() if values}


def without_shared_changes(results: Results, *, published: bool = True) -> Results:
    """Return the same results with quantized runs that lack the changes that all runs of their network share.

    A picture of runs with, for example, the same part of the training images then names only what differs. Float runs
    stay as they are.

    Args:
        results: everything read.
        published: whether to change networks of published tables too; see `shared_changes`.
    """
    shared = shared_changes(results, published=published)

    def reduced(run: FinishedRun, network: Network) -> FinishedRun:
        left = {key: value for key, value in run.record.changes.items() if key not in shared[network]}
        return replace(run, record=replace(run.record, changes=left))

    cells: dict[Cell, Sequence[FinishedRun]] = {}
    for cell, runs in results.cells.items():
        if cell.is_float or cell.network not in shared:
            cells[cell] = runs
        else:
            left = [reduced(run, cell.network) for run in runs]
            cells[cell_of(left[0].record)] = left
    return replace(results, cells=cells)


def _read_cells(folders: Iterable[Path], omit: Omit) -> dict[Cell, list[FinishedRun]]:
    found: dict[Cell, dict[int, list[Found]]] = defaultdict(lambda: defaultdict(list))
    known: dict[Cell, Cell] = {}
    for runs in folders:
        finished = [run for run in read_finished(runs, omit) if _has_own_seed(run, omit)]
        if not finished:  # an empty report would overwrite a full one
            raise SqakdError(
                f"no finished run in {runs}: expected {RunFolder.of(runs, 'NAME', 0).record}", topic="report.no_run"
            )
        for folder, record in finished:
            cell = cell_of(record)
            found[known.setdefault(cell.key, cell)][record.seed].append((folder, record))
    cells = {cell: [_counted(found[cell][seed], omit) for seed in sorted(found[cell])] for cell in found}
    return {
        cell: [
            FinishedRun(folder.path, record, _curve(folder, record, omit), _quantizers(folder, omit) if i == 0 else [])
            for i, (folder, record) in enumerate(cells[cell])
        ]
        for cell in sorted(cells, key=lambda cell: cell.order)
    }


def _has_own_seed(run: Found, omit: Omit) -> bool:
    """Return whether a folder has the record of its own seed; another one was copied there by hand."""
    folder, record = run
    if folder.path.name == folder.sibling(record.name, record.seed).path.name:
        return True
    omit(SqakdError(f"{folder.path} has the record of seed {record.seed}", topic="report.other_seed", seed=record.seed))
    return False


def _counted(runs: Sequence[Found], omit: Omit) -> Found:
    """Return the one run that counts of those with the same cell and seed; the others are left out.

    Args:
        runs: in the order in which they were read; at least one.
        omit: takes an error for each other run that is not a copy.
    """
    if len(runs) == 1:
        return runs[0]
    first = [run for run in runs if run[0].runs == runs[0][0].runs]
    counted = next((run for run in first if _has_name_of_cell(run[0])), runs[0])
    for folder, record in runs:
        if not _is_copy(record, counted[1]):
            message = f"{folder.path} is the same cell and seed as {counted[0].path}"
            omit(SqakdError(message, topic="report.repeated"))
    return counted


def _has_name_of_cell(folder: RunFolder) -> bool:
    """Return whether a run has the name that its configuration gives to its cell."""
    try:
        return folder.read_config().get("cell") == folder.path.parent.name
    except SqakdError:  # the report can do without the configuration
        return False


def _is_copy(record: Record, other: Record) -> bool:
    return record == other or record.weights_sha256 == other.weights_sha256 is not None


def _curve(folder: RunFolder, record: Record, omit: Omit) -> Numbers:
    with omitting(omit):
        return read_curve(folder, record.epochs)
    return []


def _quantizers(folder: RunFolder, omit: Omit) -> Numbers:
    with omitting(omit):
        return read_quantizers(folder.quantizers, "layer", "is_weight", "bits")
    return []


def _paper_tables(file: Path) -> dict[str, dict[Cell, PaperRow]]:
    tables: dict[str, dict[Cell, PaperRow]] = defaultdict(dict)
    for row in read_paper(file):
        tables[row.table][paper_cell(row)] = row
    return dict(sorted(tables.items()))

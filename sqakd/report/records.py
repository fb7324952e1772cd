"""What is read from disk: finished runs by cell, their curves and quantizers, exports, and the paper's numbers."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqakd.errors import SqakdError
from sqakd.runs.export_record import ExportRecord, read_exports
from sqakd.runs.paper import RELEASED, PaperRow, read_paper
from sqakd.runs.record import Record, find_records, read_record

KINDS = ("last", "best", "mean_of_last_5")

Rows = list[dict[str, float]]


class NoRunsError(SqakdError):
    """A folder without a finished run."""


@dataclass(frozen=True)
class Cell:
    """What one number is about.

    Attributes:
        changes: what else differs, "key=value, key=value"; empty for a cell as the project defines it.
    """

    dataset: str
    model: str
    quantizer: str
    w_bits: int
    a_bits: int
    kd: str
    changes: str = ""

    @property
    def bits(self) -> str:
        return "float" if self.w_bits == 32 else f"W{self.w_bits}A{self.a_bits}"

    @property
    def network(self) -> tuple[str, str]:
        return self.dataset, self.model

    @property
    def published(self) -> Cell:
        """The cell of the paper that a cell of the released code's reading stands beside."""
        return replace(self, quantizer=self.quantizer.removesuffix(RELEASED), kd=self.kd.removesuffix(RELEASED))

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts cells: the float run first, then by quantizer, bits and kd."""
        bits = (self.w_bits, self.a_bits)
        return (*self.network, self.quantizer != "none", self.quantizer, *bits, self.kd, self.changes)

    def __str__(self) -> str:
        words = (self.dataset, self.model, self.quantizer, self.bits, self.kd, self.changes)
        return " ".join(word for word in words if word)


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        folder: where it lies.
        record: its record.json.
        curve: its metrics.csv, one row per epoch; empty if there is none.
        quantizers: its quantizers.csv, one row per layer and tensor. Read for the first seed of a cell alone.
    """

    folder: Path
    record: Record
    curve: Rows
    quantizers: Rows

    @property
    def seed(self) -> int:
        return self.record.seed

    def score(self, name: str, kind: str) -> float | None:
        """One score in percent: kind is last, best or mean_of_last_5; None where the run has no such score."""
        score = self.record.scores.get(name)
        return None if score is None else 100 * float(getattr(score, kind))


@dataclass(frozen=True)
class Results:
    """Everything read from disk.

    Attributes:
        cells: finished runs of each cell, in the order of their seeds.
        paper: published numbers: table -> cell -> row of paper.csv.
        exports: records of exported files, as `sqakd.export` writes them.
    """

    cells: Mapping[Cell, Sequence[Finished]]
    paper: Mapping[str, Mapping[Cell, PaperRow]]
    exports: Sequence[ExportRecord]

    @property
    def runs(self) -> list[Finished]:
        return [run for runs in self.cells.values() for run in runs]


def read_results(runs: Iterable[Path], paper: Path | None = None) -> Results:
    """Read all finished runs of some folders.

    Args:
        runs: folders of runs, as runs/NAME/seed0/record.json. The same configuration and seed counts once, where it is
            found first.
        paper: paper.csv, or None for ours alone.

    Raises:
        NoRunsError: if a folder has no finished run.
        SqakdError: if a file cannot be read; the file is named.
    """
    folders = list(runs)
    cells = _read_cells(folders)
    exports = [record for folder in folders for record in read_exports(folder)]
    return Results(cells, {} if paper is None else _paper_tables(paper), exports)


def _read_cells(folders: Iterable[Path]) -> dict[Cell, list[Finished]]:
    cells: dict[Cell, dict[int, tuple[Path, Record]]] = defaultdict(dict)
    for folder in folders:
        files = find_records(folder)
        if not files:  # an empty report would overwrite a full one
            raise NoRunsError(f"no finished run in {folder}: expected {folder}/NAME/seed0/record.json")
        for file in files:
            record = read_record(file)
            cells[cell_of(record)].setdefault(record.seed, (file.parent, record))
    return {
        cell: [
            Finished(place, record, _curve(place), _quantizers(place) if i == 0 else [])
            for i, (_, (place, record)) in enumerate(sorted(cells[cell].items()))
        ]
        for cell in sorted(cells, key=lambda cell: cell.order)
    }


def _curve(folder: Path) -> Rows:
    return read_numbers(folder / "metrics.csv", "epoch")


def _quantizers(folder: Path) -> Rows:
    return read_numbers(folder / "quantizers.csv", "layer", "is_weight", "bits")


def cell_of(record: Record) -> Cell:
    """The cell that a record belongs to."""
    return Cell(
        record.dataset,
        record.model,
        "+".join(filter(None, [record.quantizer, record.rounding])),
        record.w_bits,
        record.a_bits,
        "+".join(filter(None, [record.kd, record.add_ons])),
        ", ".join(f"{key}={json.dumps(value)}" for key, value in record.changes.items()),
    )


def read_numbers(file: Path, *needed: str) -> Rows:
    """Rows of a CSV file of numbers; an empty field is left out, a missing file has no rows.

    Args:
        file: with a header.
        needed: columns without an empty field.

    Raises:
        SqakdError: if the file is damaged; it is named.
    """
    if not file.exists():
        return []
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            header, *rows = csv.reader(lines)
        if any(len(row) != len(header) for row in rows):
            raise ValueError("a line has more or fewer fields than the header")
        numbers = [{key: float(text) for key, text in zip(header, row, strict=True) if text} for row in rows]
        if not set(needed) <= set(header) or not all(row.keys() >= set(needed) for row in numbers):
            raise ValueError(f"expected a number in each field of {', '.join(needed)}")
        return numbers
    except (ValueError, csv.Error) as error:
        raise SqakdError(f"{file} is damaged ({error}); remove it, the report can do without") from error


def _paper_tables(file: Path) -> dict[str, dict[Cell, PaperRow]]:
    """Published numbers: table -> cell -> line of the file."""
    tables: dict[str, dict[Cell, PaperRow]] = defaultdict(dict)
    for row in read_paper(file):
        tables[row.table][Cell(row.dataset, row.model, row.quantizer, row.bits, row.bits, row.kd)] = row
    return dict(sorted(tables.items()))

"""Records into tables: the paper's number beside ours, for every cell, also the empty ones.

    python -m sqakd.report [--runs runs] [--results results]

Reads runs/*/seed*/record.json and results/paper.csv; writes results/ours.csv, and for each table a Markdown and a CSV
file. A cell's seeds are put together as mean ± standard deviation (n).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqakd.files import write_text

EMPTY = "-"
# How published numbers were come by; the rest are the paper's own.
FOOTNOTES = {"second-hand": "¹", "re-run": "²"}
LEGEND = (
    "Top-1 in percent. Ours: last epoch, and best epoch on the validation images, which are the test images as in the"
    " paper; mean ± standard deviation (n seeds). Difference: ours, last epoch, minus paper."
    " ¹ As quoted by somebody else. ² Another paper's re-run, not SQAKD's own cell."
)


@dataclass(frozen=True)
class Cell:
    """What one number is about."""

    dataset: str
    model: str
    quantizer: str
    w_bits: int
    a_bits: int
    kd: str
    name: str = ""  # of a run that was given another name than its choices', because something else differs

    @property
    def choices(self) -> str:
        """The name that a run has unless it is given another."""
        return f"{self.dataset}-{self.model}-{self.quantizer}-w{self.w_bits}a{self.a_bits}-{self.kd}"

    @property
    def bits(self) -> str:
        return "float" if self.w_bits == 32 else f"W{self.w_bits}A{self.a_bits}"


def read_records(runs: Path) -> dict[Cell, list[dict[str, Any]]]:
    """Finished runs by cell, in the order of their seeds.

    Raises:
        ValueError: if a record cannot be read.
    """
    cells: dict[Cell, list[dict[str, Any]]] = defaultdict(list)
    for file in sorted(runs.glob("*/seed*/record.json")):
        try:
            record = json.loads(file.read_text())
            choices = record["choices"]
            cell = Cell(
                choices["dataset"],
                record["model"],
                choices["quantizer"],
                record["w_bits"],
                record["a_bits"],
                choices["kd"],
            )
            if record["name"] != cell.choices:
                cell = replace(cell, name=record["name"])
        except (ValueError, KeyError) as error:
            raise ValueError(f"{file} is no record of a run ({type(error).__name__}: {error}); remove it") from error
        cells[cell].append(record)
    return {cell: sorted(records, key=lambda r: int(r["seed"])) for cell, records in cells.items()}


def read_paper(file: Path) -> dict[str, dict[Cell, dict[str, str]]]:
    """Published numbers: table -> cell -> row of the file."""
    tables: dict[str, dict[Cell, dict[str, str]]] = defaultdict(dict)
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            bits = int(row["bits"])
            cell = Cell(row["dataset"], row["model"], row["quantizer"], bits, bits, row["kd"])
            tables[row["table"]][cell] = row
    return dict(tables)


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1; 0 for a single value)."""
    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(spread / (len(values) - 1)) if len(values) > 1 else 0.0


def scores(records: Iterable[dict[str, Any]], score: str, kind: str) -> list[float]:
    """One score of each seed, in percent."""
    return [100 * r["scores"][score][kind] for r in records if score in r["scores"]]


def show(values: Sequence[float]) -> str:
    """mean ± std (n)."""
    if not values:
        return EMPTY
    mean, std = mean_std(values)
    return f"{mean:.2f} ± {std:.2f} ({len(values)})" if len(values) > 1 else f"{mean:.2f} (1)"


def paper_table(paper: dict[Cell, dict[str, str]], ours: dict[Cell, list[dict[str, Any]]]) -> list[list[str]]:
    """Rows of one of the paper's tables, header first; cells that nobody has run stay visible.

    Besides the paper's cells it has ours of the same rows (data set and network).
    """
    rows = {(cell.dataset, cell.model) for cell in paper}
    extra = [cell for cell in ours if (cell.dataset, cell.model) in rows and cell not in paper]
    header = ["data", "model", "quantizer", "bits", "kd", "paper", "ours, last", "ours, best", "difference", "epochs"]
    table = [header]
    for cell in [*paper, *sorted(extra, key=_order)]:
        published = paper.get(cell)
        records = ours.get(cell, [])
        last = scores(records, "top1", "last")
        difference = EMPTY
        if published and last:
            difference = f"{mean_std(last)[0] - float(published['top1']):+.2f}"
        note = FOOTNOTES.get(published["kind"], "") if published else ""
        table.append(
            [
                *_names(cell),
                f"{float(published['top1']):.2f}{note}" if published else EMPTY,
                show(last),
                show(scores(records, "top1", "best")),
                difference,
                _epochs(records),
            ]
        )
    return table


def own_table(ours: dict[Cell, list[dict[str, Any]]]) -> list[list[str]]:
    """Rows of a data set that the paper does not have."""
    header = ["data", "model", "quantizer", "bits", "kd", "top-1, last", "top-1, best", "agreement", "kB", "epochs"]
    return [header] + [
        [
            *_names(cell),
            show(scores(records, "top1", "last")),
            show(scores(records, "top1", "best")),
            show(scores(records, "agreement", "last")),
            f"{records[0]['packed_bytes'] / 1000:.1f}",
            _epochs(records),
        ]
        for cell, records in sorted(ours.items(), key=lambda item: _order(item[0]))
    ]


def ours_csv(ours: dict[Cell, list[dict[str, Any]]]) -> list[list[str]]:
    """Every cell that was run, with what made it."""
    kinds = [(score, kind) for score in ("top1", "agreement") for kind in ("last", "best", "mean_of_last_5")]
    header = ["dataset", "model", "quantizer", "w_bits", "a_bits", "kd", "name", "n", "seeds", "epochs"]
    header += [f"{score}_{kind}_{part}" for score, kind in kinds for part in ("mean", "std")]
    header += ["packed_bytes", "bit_operations", "commits"]
    table = [header]
    for cell, records in sorted(ours.items(), key=lambda item: _order(item[0])):
        numbers = []
        for score, kind in kinds:
            values = scores(records, score, kind)
            numbers += [f"{number:.4f}" for number in mean_std(values)] if values else ["", ""]
        table.append(
            [
                *(str(part) for part in (cell.dataset, cell.model, cell.quantizer, cell.w_bits, cell.a_bits, cell.kd)),
                cell.name or cell.choices,
                str(len(records)),
                " ".join(str(r["seed"]) for r in records),
                _epochs(records),
                *numbers,
                str(records[0]["packed_bytes"]),
                str(records[0]["bit_operations"]),
                " ".join(sorted({str(r["commit"])[:10] for r in records})),
            ]
        )
    return table


def as_markdown(table: list[list[str]]) -> str:
    """A Markdown table."""
    header, *rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(table: list[list[str]]) -> str:
    """CSV text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def _order(cell: Cell) -> tuple[Any, ...]:
    return (
        cell.dataset,
        cell.model,
        cell.quantizer != "none",
        cell.quantizer,
        cell.w_bits,
        cell.a_bits,
        cell.kd,
        cell.name,
    )


def _names(cell: Cell) -> list[str]:
    return [cell.dataset, cell.model, cell.quantizer, cell.bits, f"{cell.kd} ({cell.name})" if cell.name else cell.kd]


def _epochs(records: list[dict[str, Any]]) -> str:
    return " ".join(str(epochs) for epochs in sorted({r["epochs"] for r in records})) or EMPTY


def write_report(runs: Path, results: Path) -> list[Path]:
    """Write all files; returns their paths."""
    ours, paper = read_records(runs), read_paper(results / "paper.csv")
    tables = {name: paper_table(cells, ours) for name, cells in paper.items()}
    published = {cell.dataset for cells in paper.values() for cell in cells}
    for dataset in sorted({cell.dataset for cell in ours} - published):
        tables[dataset] = own_table({cell: records for cell, records in ours.items() if cell.dataset == dataset})
    written = [results / "ours.csv"]
    write_text(written[0], as_csv(ours_csv(ours)))
    for name, table in tables.items():
        for suffix, text in ((".md", f"# {name}\n\n{LEGEND}\n\n{as_markdown(table)}"), (".csv", as_csv(table))):
            written.append(results / f"{name}{suffix}")
            write_text(written[-1], text)
    return written


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Tables of all finished runs, the paper's numbers beside ours.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with paper.csv, for the tables")
    options = parser.parse_args()
    if not (options.results / "paper.csv").is_file():
        raise SystemExit(
            f"error: no {options.results / 'paper.csv'}; run this in the project's folder or give --results"
        )
    try:
        for path in write_report(options.runs, options.results):
            print(path)  # noqa: T201
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()

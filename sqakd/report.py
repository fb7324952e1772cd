"""Records into tables: the paper's number beside ours, for every cell, also the empty ones.

    python -m sqakd.report [--runs runs] [--results results]

Reads runs/*/seed*/record.json and results/paper.csv; writes results/ours.csv, and for each table a Markdown and a CSV
file. A cell's seeds are put together as mean ± standard deviation (n). A run that differs from its cell in any value is
a row of its own, which says in what, and never stands in the paper's.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from sqakd.files import write_text

EMPTY = "-"
# How published numbers were come by; the rest are the paper's own.
FOOTNOTES = {"second-hand": "¹", "re-run": "²", "not published": ""}
RELEASED = "_released"
RELEASED_NOTE = "³"
LEGEND = (
    "Top-1 in percent. Last: last epoch. Best: best epoch on the validation images, which for CIFAR and Tiny-ImageNet"
    " are the test images, as in the paper. Mean ± standard deviation (n seeds)."
)
PAPER_LEGEND = (
    " Difference: ours, last epoch, minus paper. A dash is a cell that nobody has run, or a number that we do not have."
    " ¹ As quoted by somebody else. ² Another paper's re-run, not SQAKD's own cell. ³ The number of the paper's cell"
    " without _released."
)
SCORES = ("top1", "top5", "agreement")
KINDS = ("last", "best", "mean_of_last_5")

Record = dict[str, Any]


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
    def published(self) -> Cell:
        """The cell of the paper that a cell of the released code's reading stands beside."""
        return replace(self, quantizer=self.quantizer.removesuffix(RELEASED), kd=self.kd.removesuffix(RELEASED))


class Row(NamedTuple):
    """A line of a table: published, ours, or both; `published` is a line of paper.csv, `records` one of each seed."""

    cell: Cell
    published: dict[str, str] | None
    records: list[Record]

    def paper(self, score: str) -> float | None:
        """The published number, in percent."""
        text = self.published.get(score) if self.published else None
        return float(text) if text else None

    def ours(self, score: str, kind: str) -> list[float]:
        """One score of each seed, in percent."""
        return [100 * r["scores"][score][kind] for r in self.records if score in r["scores"]]

    @property
    def difference(self) -> float | None:
        """Ours (last epoch) minus paper, in points."""
        paper, last = self.paper("top1"), self.ours("top1", "last")
        return mean_std(last)[0] - paper if paper is not None and last else None

    @property
    def epochs(self) -> str:
        return " ".join(str(epochs) for epochs in sorted({r["epochs"] for r in self.records}))


def read_records(runs: Path) -> dict[Cell, list[Record]]:
    """Finished runs by cell, in the order of their seeds.

    The same configuration and seed under two names counts once.

    Raises:
        ValueError: if there is none, or one cannot be read.
    """
    cells: dict[Cell, dict[int, Record]] = defaultdict(dict)
    files = sorted(runs.glob("*/seed*/record.json"))
    if not files:  # an empty report would overwrite a full one
        raise ValueError(f"no finished run in {runs}: expected {runs}/NAME/seed0/record.json; type --runs FOLDER")
    for file in files:
        try:
            record = json.loads(file.read_text())
            cell, seed = _cell(record), int(record["seed"])
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{file} is no record of a run ({type(error).__name__}: {error}); remove it") from error
        cells[cell].setdefault(seed, record)
    return {cell: [seeds[seed] for seed in sorted(seeds)] for cell, seeds in cells.items()}


def _cell(record: Record) -> Cell:
    choices = record["choices"]
    rounding = next((w for w in record["command"].split() if w.startswith("quantizer/rounding=")), "")
    return Cell(
        choices["dataset"],
        record["model"],
        choices["quantizer"] + rounding.replace("quantizer/rounding=", "+"),
        record["w_bits"],
        record["a_bits"],
        "+".join([choices["kd"], *([choices["plus"]] if choices.get("plus") else [])]),
        ", ".join(f"{key}={json.dumps(value)}" for key, value in record["changes"].items()),
    )


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


def show(values: Sequence[float]) -> str:
    """mean ± std (n)."""
    if not values:
        return EMPTY
    mean, std = mean_std(values)
    return f"{mean:.2f} ± {std:.2f} ({len(values)})" if len(values) > 1 else f"{mean:.2f} (1)"


def paper_rows(paper: Mapping[Cell, dict[str, str]], ours: Mapping[Cell, list[Record]]) -> list[Row]:
    """Lines of one of the paper's tables: its cells, also those nobody has run, then what else its networks did."""
    networks = {(cell.dataset, cell.model) for cell in paper}
    extra = [cell for cell in ours if (cell.dataset, cell.model) in networks and cell not in paper]
    return [Row(cell, paper[cell], ours.get(cell, [])) for cell in paper] + [
        Row(cell, paper.get(cell.published), ours[cell]) for cell in sorted(extra, key=_order)
    ]


def own_rows(ours: Mapping[Cell, list[Record]], cells: Iterable[Cell]) -> list[Row]:
    """Lines of a table of ours alone."""
    return [Row(cell, None, ours[cell]) for cell in sorted(cells, key=_order)]


def paper_markdown(rows: Sequence[Row]) -> str:
    """One of the paper's tables, to be read."""
    header = ["data", "model", "quantizer", "bits", "kd", "changed", "paper", "ours, last", "ours, best"]
    header += ["difference", "paper, top-5", "ours, top-5", "epochs"]
    return as_markdown(
        [
            header,
            *(
                [
                    *_names(row.cell),
                    _published(row, "top1"),
                    show(row.ours("top1", "last")),
                    show(row.ours("top1", "best")),
                    EMPTY if row.difference is None else f"{row.difference:+.2f}",
                    _published(row, "top5"),
                    show(row.ours("top5", "last")),
                    row.epochs or EMPTY,
                ]
                for row in rows
            ),
        ],
        optional=(("changed",), ("paper, top-5", "ours, top-5")),
    )


def own_markdown(rows: Sequence[Row]) -> str:
    """A table of ours alone, to be read."""
    header = ["data", "model", "quantizer", "bits", "kd", "changed", "last", "best", "agreement with the teacher, last"]
    header += ["kB", "epochs"]
    return as_markdown(
        [
            header,
            *(
                [
                    *_names(row.cell),
                    show(row.ours("top1", "last")),
                    show(row.ours("top1", "best")),
                    show(row.ours("agreement", "last")),
                    f"{row.records[0]['packed_bytes'] / 1000:.1f}",
                    row.epochs,
                ]
                for row in rows
            ),
        ],
        optional=(("changed",),),
    )


def as_csv(rows: Iterable[Row]) -> str:
    """Lines to be computed with: one number or word in each field, nothing where there is none."""
    header = ["dataset", "model", "quantizer", "w_bits", "a_bits", "kd", "changed"]
    header += ["paper_top1", "paper_top5", "paper_kind", "paper_cell", "n", "seeds", "epochs"]
    header += [f"{score}_{kind}_{part}" for score in SCORES for kind in KINDS for part in ("mean", "std")]
    header += ["difference", "packed_bytes", "bit_operations", "commits"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    for row in rows:
        cell, published, records = row
        first = records[0] if records else {}
        stands_beside = "" if not published else "its own" if cell == cell.published else "without _released"
        table.writerow(
            [
                *(cell.dataset, cell.model, cell.quantizer, cell.w_bits, cell.a_bits, cell.kd, cell.changes),
                *([published["top1"], published["top5"], published["kind"]] if published else [""] * 3),
                stands_beside,
                len(records),
                " ".join(str(r["seed"]) for r in records),
                row.epochs,
                *(number for score in SCORES for kind in KINDS for number in _mean_std(row.ours(score, kind))),
                "" if row.difference is None else f"{row.difference:.4f}",
                *(first.get(key, "") for key in ("packed_bytes", "bit_operations")),
                " ".join(sorted({str(r["commit"])[:10] for r in records})),
            ]
        )
    return text.getvalue()


def as_markdown(table: list[list[str]], *, optional: Sequence[Sequence[str]] = ()) -> str:
    """A Markdown table, header first; optional columns are left out where they and their companions are empty."""
    header, *rows = table
    empty = {name for name, *cells in zip(*table, strict=True) if set(cells) <= {"", EMPTY}}
    left_out = {name for names in optional if empty.issuperset(names) for name in names}
    kept = [i for i, name in enumerate(header) if name not in left_out]
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line[i] for i in kept)} |\n" for line in lines)


def _mean_std(values: Sequence[float]) -> list[str]:
    if not values:
        return ["", ""]
    mean, std = mean_std(values)
    return [f"{mean:.4f}", f"{std:.4f}" if len(values) > 1 else ""]


def _published(row: Row, score: str) -> str:
    number = row.paper(score)
    if number is None or row.published is None:
        return EMPTY
    note = "" if row.cell == row.cell.published else RELEASED_NOTE
    return f"{number:.2f}{FOOTNOTES.get(row.published['kind'], '')}{note}"


def _order(cell: Cell) -> tuple[Any, ...]:
    return (
        cell.dataset,
        cell.model,
        cell.quantizer != "none",
        cell.quantizer,
        cell.w_bits,
        cell.a_bits,
        cell.kd,
        cell.changes,
    )


def _names(cell: Cell) -> list[str]:
    return [cell.dataset, cell.model, cell.quantizer, cell.bits, cell.kd, cell.changes.replace("|", "\\|")]


def write_report(runs: Path, results: Path) -> list[Path]:
    """Write all files; returns their paths."""
    ours, paper = read_records(runs), read_paper(results / "paper.csv")
    everything = own_rows(ours, ours)
    texts = {"ours.csv": as_csv(everything)}
    for name, cells in paper.items():
        rows = paper_rows(cells, ours)
        texts[f"{name}.md"] = f"# {name}\n\n{LEGEND}{PAPER_LEGEND}\n\n{paper_markdown(rows)}"
        texts[f"{name}.csv"] = as_csv(rows)
    published = {(cell.dataset, cell.model) for cells in paper.values() for cell in cells}
    rest = [cell for cell in ours if (cell.dataset, cell.model) not in published]
    for dataset in sorted({cell.dataset for cell in rest}):
        rows = own_rows(ours, [cell for cell in rest if cell.dataset == dataset])
        texts[f"{dataset}.md"] = f"# {dataset}\n\n{LEGEND}\n\n{own_markdown(rows)}"
        texts[f"{dataset}.csv"] = as_csv(rows)
    for name, text in texts.items():
        write_text(results / name, text)
    return [results / name for name in texts]


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

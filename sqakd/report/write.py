"""Everything that the report writes: a Markdown and a CSV file for each table, README's tables, and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqakd.files import write_text
from sqakd.report.numbers import as_csv
from sqakd.report.records import Results, read_results
from sqakd.report.rows import Row, own_rows, paper_rows, unpublished
from sqakd.report.tables import LABELS_LEGEND, LEGEND, PAPER_LEGEND, as_markdown, labels_table, own_table, paper_table


def write_report(runs: Path | Sequence[Path], results: Path) -> list[Path]:
    """Read runs and results/paper.csv, and write all tables; returns their paths."""
    folders = [runs] if isinstance(runs, Path) else runs
    return write_tables(read_results(folders, results / "paper.csv"), results)


def write_tables(results: Results, folder: Path) -> list[Path]:
    """Write a Markdown and a CSV file for each table, and ours.csv; returns their paths."""
    texts = {"ours.csv": as_csv(own_rows(results, results.cells))}
    for name in results.paper:
        rows = paper_rows(results, name)
        texts[f"{name}.md"] = _text(name, f"{LEGEND}{PAPER_LEGEND}", as_markdown(paper_table(rows)), rows)
        texts[f"{name}.csv"] = as_csv(rows)
    for name, cells in unpublished(results).items():
        rows = own_rows(results, cells)
        texts[f"{name}.md"] = _text(name, LEGEND, as_markdown(own_table(rows)), rows)
        texts[f"{name}.csv"] = as_csv(rows)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _text(name: str, legend: str, table: str, rows: Sequence[Row]) -> str:
    labels = labels_table(rows)
    text = f"# {name}\n\n{legend}\n\n{table}"
    return text + (f"\n## Against labels alone\n\n{LABELS_LEGEND}\n\n{as_markdown(labels)}" if labels.rows else "")

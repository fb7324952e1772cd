"""Everything that the report writes: a Markdown and a CSV file for each table, README's tables, and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqakd.files import write_text
from sqakd.report.csv_text import as_csv
from sqakd.report.page import write_page
from sqakd.report.readme import fill
from sqakd.report.records import Results, read_results
from sqakd.report.rows import Row, own_rows, paper_rows, unpublished
from sqakd.report.sections import sections
from sqakd.report.summary import SIGNS_LEGEND, grid_table
from sqakd.report.tables import (
    LABELS_LEGEND,
    LEGEND,
    PAPER_LEGEND,
    Table,
    as_markdown,
    labels_table,
    own_table,
    paper_table,
)


@dataclass(frozen=True)
class Block:
    """One table in all its forms: its lines, as it is read, and what its words mean."""

    rows: Sequence[Row]
    table: Table
    legend: str


def blocks(results: Results) -> dict[str, Block]:
    """Tables by name: the paper's, and one for each data set of which it has no network."""
    found = {}
    for name in results.paper:
        rows = paper_rows(results, name)
        found[name] = Block(rows, paper_table(rows), LEGEND + PAPER_LEGEND)
    for name, cells in unpublished(results).items():
        rows = own_rows(results, cells)
        found[name] = Block(rows, own_table(rows), LEGEND)
    return found


def table_files(results: Results) -> dict[str, str]:
    """Name and text of each file of tables."""
    texts = {"ours.csv": as_csv(own_rows(results, results.cells))}
    for name, block in blocks(results).items():
        text = f"# {name}\n\n{block.legend}\n\n{as_markdown(block.table)}"
        labels = labels_table(block.rows)
        if labels.rows:
            text += f"\n## Against labels alone\n\n{LABELS_LEGEND}\n\n{as_markdown(labels)}"
        texts |= {f"{name}.md": text, f"{name}.csv": as_csv(block.rows)}
    return texts


def readme_tables(results: Results) -> dict[str, str]:
    """Markdown by the name a marker gives: NAME the table, NAME-labels and NAME-summary where there is such a table."""
    texts = {}
    for name, block in blocks(results).items():
        texts[name] = f"{as_markdown(block.table)}\n{block.legend}"
        labels = labels_table(block.rows)
        if labels.rows:
            texts[f"{name}-labels"] = f"{as_markdown(labels)}\n{LABELS_LEGEND}"
        networks = dict.fromkeys(row.cell.network for row in block.rows if row.runs and row.cell.bits != "float")
        grids = [(" ".join(network), grid_table(results, network)) for network in networks]
        if grids:
            parts = [f"{title}:\n\n{as_markdown(grid)}" for title, grid in grids]
            texts[f"{name}-summary"] = "\n".join([*parts, SIGNS_LEGEND])
    return texts


def write_report(
    runs: Path | Sequence[Path],
    results: Path,
    *,
    html: Path | None = None,
    title: str = "sqakd: results",
    readme: Path | None = None,
    skip_unknown: bool = False,
) -> list[Path]:
    """Read runs and results/paper.csv, and write everything; nothing is written if anything cannot be read.

    Args:
        runs: folder or folders of runs.
        results: folder of the tables, with paper.csv.
        html: the page, or None for results/report.html.
        title: of the page.
        readme: a Markdown file with markers, or None.
        skip_unknown: whether its markers without a table are left as they are.

    Returns:
        The files that were written.

    Raises:
        ValueError: if something cannot be read; it is named.
    """
    found = read_results([runs] if isinstance(runs, Path) else runs, results / "paper.csv")
    page = html or results / "report.html"
    texts: dict[Path, str] = {results / name: text for name, text in table_files(found).items()}
    if readme is not None:
        texts[readme] = _filled(readme, readme_tables(found), skip_unknown=skip_unknown)
    parts = sections(found)
    for file in (page, *texts):
        if not file.parent.is_dir():
            raise ValueError(f"no folder {file.parent} for {file.name}; make it, or type another one")
    for file, text in texts.items():
        write_text(file, text)
    write_page(page, title=title, sections=parts)
    return [*texts, page]


def _filled(readme: Path, tables: Mapping[str, str], *, skip_unknown: bool) -> str:
    try:
        return fill(readme.read_text(encoding="utf-8"), tables, skip_unknown=skip_unknown)
    except OSError as error:
        raise ValueError(f"cannot read {readme}: {error.strerror}; type --readme FILE") from error
    except ValueError as error:
        raise ValueError(f"{readme}: {error}") from error

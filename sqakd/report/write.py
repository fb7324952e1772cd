"""The files of the report: a Markdown and a CSV file for each table, the tables of a README, and the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqakd.errors import SqakdError
from sqakd.files import write_text
from sqakd.report.comparisons import Comparison, own_comparisons, paper_comparisons, unpublished
from sqakd.report.csv_tables import comparisons_csv
from sqakd.report.headline import cost_picture, headline
from sqakd.report.outputs import BITS, COST, CSV, MARKDOWN, Kind, check_outputs, stem
from sqakd.report.page import PAGE, write_page
from sqakd.report.paired import PAIRED_LEGEND, PAIRED_TITLE, paired_tables
from sqakd.report.pooled import POOLED_LEGEND, POOLED_TITLE, pooled_table
from sqakd.report.readme import fill, read_markdown
from sqakd.report.result_tables import LABELS_LEGEND, LEGEND, PAPER_LEGEND, labels_table, own_table, paper_table
from sqakd.report.results import Results, read_results, without_shared_changes
from sqakd.report.sections import sections
from sqakd.report.summary import SHARED_TITLE, SIGNS_LEGEND, grid_table, shared_table
from sqakd.report.table import Table, as_markdown, markdown
from sqakd.runs.listing import Omit, strictly
from sqakd.shipped import IS_INSTALLED, paper_file


@dataclass(frozen=True)
class TableFile:
    """One table in its two forms: comparisons to compute with, and text to read with its legend."""

    lines: Sequence[Comparison]
    table: Table
    legend: str


def table_files(results: Results) -> dict[str, TableFile]:
    """Return the tables by name: the published ones, and one for each data set with networks of no published table."""
    found = {}
    for name in results.paper:
        lines = paper_comparisons(results, name)
        found[stem(name)] = TableFile(lines, paper_table(lines), LEGEND + PAPER_LEGEND)
    for name, cells in unpublished(results).items():
        lines = own_comparisons(results, cells)
        found[stem(name, results.paper)] = TableFile(lines, own_table(lines), LEGEND)
    return found


def texts_by_file(results: Results) -> dict[str, str]:
    """Return name and content of each Markdown and CSV file."""
    texts = {"ours.csv": comparisons_csv(own_comparisons(results, results.cells))}
    shared = shared_table(results)
    whole = table_files(results)
    for name, file in table_files(without_shared_changes(results, published=False)).items():
        text = f"# {markdown(name)}\n\n{file.legend}\n\n{as_markdown(file.table)}{_shared(shared, name)}"
        labels = labels_table(file.lines)
        if labels.rows:
            text += f"\n## Compared with labels alone\n\n{LABELS_LEGEND}\n\n{as_markdown(labels)}"
        pooled = pooled_table(file.lines)
        if pooled.rows:
            text += f"\n## {POOLED_TITLE}\n\n{POOLED_LEGEND}\n\n{as_markdown(pooled)}"
        if paired := _paired(file.lines):
            text += f"\n## {PAIRED_TITLE}\n\n{PAIRED_LEGEND}\n\n{paired}"
        texts |= {f"{name}.md": text, f"{name}.csv": comparisons_csv(whole[name].lines)}
    return texts


def _shared(table: Table, dataset: str) -> str:
    """Return the changes that the runs of a data set share as Markdown; empty if there are none."""
    rows = [row for row in table.rows if row[0] == dataset]
    return f"\n{SHARED_TITLE}:\n\n{as_markdown(replace(table, rows=rows))}" if rows else ""


def _paired(lines: Iterable[Comparison]) -> str:
    """Return the comparisons with SQAKD as Markdown; empty if there are none."""
    return "\n".join(map(as_markdown, paired_tables({line.cell: line.runs for line in lines if line.runs})))


def readme_tables(results: Results) -> dict[str, str]:
    """Return Markdown by the name in a marker: NAME for a table, or NAME-labels, -pooled, -sqakd or -summary."""
    texts, shared = {}, shared_table(results)
    results = without_shared_changes(results, published=False)
    for name, file in table_files(results).items():
        texts[name] = f"{as_markdown(file.table)}{_shared(shared, name)}\n{file.legend}"
        labels = labels_table(file.lines)
        if labels.rows:
            texts[f"{name}-labels"] = f"{as_markdown(labels)}\n{LABELS_LEGEND}"
        pooled = pooled_table(file.lines)
        if pooled.rows:
            texts[f"{name}-pooled"] = f"{as_markdown(pooled)}\n{POOLED_LEGEND}"
        if paired := _paired(file.lines):
            texts[f"{name}-sqakd"] = f"{paired}\n{PAIRED_LEGEND}"
        networks = dict.fromkeys(line.cell.network for line in file.lines if line.runs and not line.cell.is_float)
        grids = [
            f"{markdown(' '.join(network))}:\n\n{as_markdown(grid_table(results, network))}" for network in networks
        ]
        if grids:
            texts[f"{name}-summary"] = "\n".join([*grids, SIGNS_LEGEND])
    return texts


def write_report(
    runs: Path | Sequence[Path],
    results: Path,
    *,
    html: Path | None = None,
    title: str = "sqakd: results",
    readme: Path | None = None,
    skip_unknown: bool = False,
    picture: Path | None = None,
    cost: Path | None = None,
    omit: Omit = strictly,
) -> list[Path]:
    """Read runs and published numbers and write all files.

    Args:
        runs: folder or folders of runs.
        results: folder of the tables, with paper.csv; an installed package has its own.
        html: the page; None for report.html in the folder of the tables.
        title: title of the page.
        readme: a Markdown file with markers, or None.
        skip_unknown: whether markers without a table are left as they are.
        picture: an SVG file for accuracy against bits, or None.
        cost: an SVG file for accuracy against size and bit-operations, or None.
        omit: takes the error of a damaged file of a run, which is left out. By default nothing is then written.

    Returns:
        The files that were written.

    Raises:
        SqakdError: if a file cannot be read, a folder does not exist, or a file would be replaced that the report did
            not write; it is named.
    """
    own = results / "paper.csv"
    published = own if own.is_file() or not IS_INSTALLED else paper_file()
    found = read_results([runs] if isinstance(runs, Path) else runs, published, omit=omit)
    page = html or results / "report.html"
    tables_by_file = texts_by_file(found)
    texts: dict[Path, str] = {results / name: text for name, text in tables_by_file.items()}
    if readme is not None:
        texts[readme] = _filled(readme, readme_tables(found), skip_unknown=skip_unknown)
    if picture is not None:
        texts[picture] = headline(found)
    if cost is not None:
        texts[cost] = cost_picture(found)
    parts = sections(found)
    if IS_INSTALLED:  # a checkout has the folder
        results.mkdir(parents=True, exist_ok=True)
    tables = ((results / name, CSV if name.endswith(".csv") else MARKDOWN) for name in tables_by_file)
    check_outputs([(page, PAGE), *tables, *_given(readme, None), *_given(picture, BITS), *_given(cost, COST)])
    for file, text in texts.items():
        write_text(file, text)
    write_page(page, title=title, sections=parts)
    return [*texts, page]


def _given(file: Path | None, kind: Kind | None) -> list[tuple[Path, Kind | None]]:
    return [] if file is None else [(file, kind)]


def _filled(readme: Path, tables: Mapping[str, str], *, skip_unknown: bool) -> str:
    text = read_markdown(readme)
    try:
        return fill(text, tables, skip_unknown=skip_unknown)
    except SqakdError as error:
        raise SqakdError(f"{readme}: {error}") from error

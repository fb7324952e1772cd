"""Sections of the report's page: summary, pictures, tables, and all runs."""

from __future__ import annotations

from collections.abc import Sequence

from sqakd.report.charts.svg import tag, text
from sqakd.report.comparisons import Comparison, own_comparisons, paper_comparisons, unpublished
from sqakd.report.page import Section
from sqakd.report.paired import PAIRED_LEGEND, PAIRED_TITLE, paired_tables
from sqakd.report.panels import PANELS, TITLES
from sqakd.report.pooled import POOLED_LEGEND, POOLED_TITLE, pooled_table
from sqakd.report.provenance import UNKNOWN, anchors, device_text, provenance, short_commit
from sqakd.report.result_tables import LABELS_LEGEND, LEGEND, PAPER_LEGEND, labels_table, own_table, paper_table
from sqakd.report.results import Results, without_shared_changes
from sqakd.report.summary import SHARED_TITLE, SIGNS_LEGEND, grid_table, shared_table, tally_table
from sqakd.report.table import Table, as_html


def sections(results: Results) -> list[Section]:
    """Return all sections of the page in their order."""
    shared = shared_table(results)
    results = without_shared_changes(results, published=False)
    return [
        Section("summary", "Summary", _summary(results, shared)),
        *(Section(name, TITLES[name], panel(results)) for name, panel in PANELS.items()),
        Section("tables", "Tables", _tables(results)),
        Section("runs", "Runs", provenance(results)),
    ]


def _legend(legend: str) -> str:
    return tag("p", text(legend), class_="legend-text")


def _summary(results: Results, shared: Table) -> str:
    parts = [_facts(results)]
    if shared.rows:
        parts += [f"<h3>{SHARED_TITLE}</h3>", as_html(shared)]
    lines = own_comparisons(results, results.cells)
    pooled, tally = pooled_table(lines), tally_table(lines)
    if pooled.rows:
        parts += [f"<h3>{POOLED_TITLE}</h3>", as_html(pooled), _legend(POOLED_LEGEND)]
    if tally.rows:
        parts.append("<h3>How often a training method is distinguishable from labels alone, last epoch</h3>")
        parts += [as_html(tally), _legend(LABELS_LEGEND)]
    networks = dict.fromkeys(cell.network for cell in results.cells if not cell.is_float)
    for network in networks:
        parts += [tag("h3", text(" ".join(network))), as_html(grid_table(results, network), anchors(results))]
    if networks:
        parts.append(_legend(SIGNS_LEGEND))
    return "".join(parts)


def _facts(results: Results) -> str:
    """Return what the page is about, in a few numbers."""
    records = [run.record for run in results.runs]
    finished = sorted(record.finished[:10] for record in records if record.finished)
    facts = [
        ("runs", str(len(records))),
        ("cells", str(len(results.cells))),
        ("seeds per cell", _span([len(runs) for runs in results.cells.values()])),
        ("training time", f"{sum(record.training_seconds or 0 for record in records) / 3600:.1f} h in all"),
        ("device", "; ".join(sorted({device_text(record) for record in records}))),
        ("commit", ", ".join(sorted({short_commit(record.commit) for record in records}))),
        ("torch", ", ".join(sorted({record.versions.get("torch", UNKNOWN) for record in records}))),
        ("finished", " to ".join(dict.fromkeys([finished[0], finished[-1]])) if finished else UNKNOWN),
    ]
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", text(value))) for name, value in facts), class_="facts")


def _span(values: Sequence[int]) -> str:
    return " to ".join(str(end) for end in sorted({min(values), max(values)})) if values else "0"


def _tables(results: Results) -> str:
    parts = []
    for name, cells in unpublished(results).items():
        lines = own_comparisons(results, cells)
        parts.append(_table(name, own_table(lines), LEGEND, lines, results, is_open=True))
    for name in results.paper:
        lines = paper_comparisons(results, name)
        done = sum(cell in results.cells for cell in results.paper[name])
        title = f"{name}: {done} of {len(results.paper[name])} cells run"
        is_open = any(line.runs for line in lines)
        parts.append(_table(title, paper_table(lines), LEGEND + PAPER_LEGEND, lines, results, is_open=is_open))
    return "".join(parts)


def _table(
    title: str, table: Table, legend: str, lines: Sequence[Comparison], results: Results, *, is_open: bool
) -> str:
    content = [as_html(table, anchors(results)), _legend(legend)]
    labels = labels_table(lines)
    if labels.rows:
        content += ["<h3>Compared with labels alone</h3>", as_html(labels, anchors(results)), _legend(LABELS_LEGEND)]
    content += _paired(lines, results)
    return tag("details", tag("summary", text(title)), *content, **({"open": ""} if is_open else {}))


def _paired(lines: Sequence[Comparison], results: Results) -> list[str]:
    """Return the comparisons with SQAKD; nothing if there are none."""
    tables = paired_tables({line.cell: line.runs for line in lines if line.runs})
    shown = [as_html(table, anchors(results)) for table in tables]
    return [tag("h3", PAIRED_TITLE), *shown, _legend(PAIRED_LEGEND)] if shown else []

"""The report's page: summary, pictures, tables, and where each number is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqakd.report.charts.svg import tag, text
from sqakd.report.page import Section
from sqakd.report.panels import PANELS, TITLES
from sqakd.report.provenance import anchors, device, provenance, short_commit
from sqakd.report.records import Cell, Results
from sqakd.report.rows import Row, own_rows, paper_rows, unpublished
from sqakd.report.summary import SIGNS_LEGEND, grid_table, tally_table
from sqakd.report.tables import (
    LABELS_LEGEND,
    LEGEND,
    NAMES,
    PAPER_LEGEND,
    Table,
    labels_table,
    own_table,
    paper_table,
)


def sections(results: Results) -> list[Section]:
    """All parts of the page in their order."""
    return [
        Section("summary", "Summary", _summary(results)),
        *(Section(name, TITLES[name], panel(results)) for name, panel in PANELS.items()),
        Section("tables", "Tables", _tables(results)),
        Section("runs", "Runs", provenance(results)),
    ]


def as_html(table: Table, places: Mapping[Cell, str]) -> str:
    """A table that scrolls in its own box; a line that has runs of ours links to them.

    What is the same in all lines, for example the data set, stands once, in the first field of the header.
    """
    named = [i for i, name in enumerate(table.header) if name in NAMES]
    same = [i for i in named if len({line[i] for line in table.rows}) == 1 and len(table.rows) > 1]
    told = [i for i in named if i not in same] or named
    rest = [i for i in range(len(table.header)) if i not in named]
    about = " ".join(table.rows[0][i] for i in same) if told != named else ""
    first = f"{about}: " * bool(about) + ", ".join(table.header[i] for i in told)
    head = "".join(tag("th", text(name), scope="col") for name in (first, *(table.header[i] for i in rest)))
    lines = []
    for number, (cell, line) in enumerate(zip(table.cells, table.rows, strict=True)):
        links = table.links[number] if table.links else {}
        name = _link(" ".join(line[i] for i in told if line[i]), None if links else places.get(cell))
        fields = (_field(line[i], places.get(links[i]) if i in links else None) for i in rest)
        lines.append(tag("tr", tag("th", name, scope="row"), *fields))
    body = tag("table", tag("thead", tag("tr", head)), tag("tbody", *lines))
    return tag("div", body, class_="scroll", tabindex="0")


def _link(content: str, place: str | None) -> str:
    return tag("a", text(content), href=f"#{place}") if place else text(content)


def _field(content: str, place: str | None) -> str:
    kinds = {"better": "better", "worse": "worse", "▲": "better", "▼": "worse"}
    kind = kinds.get(content.rpartition(" ")[2])
    return tag("td", _link(content, place), **({"class": kind} if kind else {}))


def _summary(results: Results) -> str:
    places = anchors(results)
    rows = own_rows(results, results.cells)
    parts = [_facts(results)]
    tally = tally_table(rows)
    if tally.rows:
        parts += ["<h3>How often a way to train is told apart from labels alone, last epoch</h3>", as_html(tally, {})]
        parts.append(tag("p", text(LABELS_LEGEND), class_="legend-text"))
    for network in dict.fromkeys(cell.network for cell in results.cells if cell.bits != "float"):
        table = grid_table(results, network)
        parts += [tag("h3", text(" ".join(network))), as_html(table, places)]
    if any(cell.bits != "float" for cell in results.cells):
        parts.append(tag("p", text(SIGNS_LEGEND), class_="legend-text"))
    return "".join(parts)


def _facts(results: Results) -> str:
    """What the page is about, in a few numbers."""
    runs = results.runs
    records = [run.record for run in runs]
    finished = sorted(record.finished[:10] for record in records if record.finished)
    facts = [
        ("runs", str(len(runs))),
        ("cells", str(len(results.cells))),
        ("seeds of a cell", _span([len(some) for some in results.cells.values()])),
        ("trained for", f"{sum(record.training_seconds or 0 for record in records) / 3600:.1f} h in all"),
        ("device", "; ".join(sorted({device(record) for record in records}))),
        ("commit", ", ".join(sorted({short_commit(record.commit) for record in records}))),
        ("torch", ", ".join(sorted({record.versions.get("torch", "not recorded") for record in records}))),
        ("finished", " to ".join(dict.fromkeys([finished[0], finished[-1]])) if finished else "not recorded"),
    ]
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", text(value))) for name, value in facts), class_="facts")


def _span(values: Sequence[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _tables(results: Results) -> str:
    parts = []
    for name, cells in unpublished(results).items():
        rows = own_rows(results, cells)
        parts.append(_table(name, own_table(rows), LEGEND, rows, results, is_open=True))
    for name in results.paper:
        rows = paper_rows(results, name)
        done = sum(cell in results.cells for cell in results.paper[name])
        title = f"{name}: {done} of {len(results.paper[name])} cells run"
        is_open = any(row.runs for row in rows)
        parts.append(_table(title, paper_table(rows), LEGEND + PAPER_LEGEND, rows, results, is_open=is_open))
    return "".join(parts)


def _table(title: str, table: Table, words: str, rows: Sequence[Row], results: Results, *, is_open: bool) -> str:
    places = anchors(results)
    content = [as_html(table, places), tag("p", text(words), class_="legend-text")]
    labels = labels_table(rows)
    if labels.rows:
        content += ["<h3>Against labels alone</h3>", as_html(labels, places)]
        content.append(tag("p", text(LABELS_LEGEND), class_="legend-text"))
    return tag("details", tag("summary", text(title)), *content, **({"open": ""} if is_open else {}))

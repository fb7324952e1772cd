"""A table of text, as Markdown or as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqakd.report.cells import Cell
from sqakd.report.charts.svg import tag, text
from sqakd.terminal import printable

EMPTY = "-"
MARKS = re.compile(r"[\\|`*~\[\]]")  # of Markdown, within a line
# Columns that together name the cell of a row, in the tables of runs.
CELL_COLUMNS = ("data", "model", "quantizer", "bits", "kd", "changed")
# Last words of a field that say how a difference came out, and their CSS classes.
VERDICT_CLASSES = {"better": "better", "worse": "worse", "▲": "better", "▼": "worse"}


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        header: names of the columns.
        rows: one text for each column.
        cells: the cell that each row is about; empty if the rows are about something else.
        links: for each row, the cell that a column is about if that is another one; empty if nowhere.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    cells: Sequence[Cell] = ()
    links: Sequence[Mapping[int, Cell]] = ()

    def without_empty(self, *groups: Sequence[str]) -> Table:
        """Return the table without each group of columns that are all empty."""
        columns = {name: {row[i] for row in self.rows} for i, name in enumerate(self.header)}
        gone = {name for group in groups if all(columns[n] <= {"", EMPTY} for n in group) for name in group}
        kept = [i for i, name in enumerate(self.header) if name not in gone]
        return Table([self.header[i] for i in kept], [[row[i] for i in kept] for row in self.rows], self.cells)


def markdown(content: str) -> str:
    """Return plain text as Markdown in one line: nothing in the text becomes a link, a tag, code or another cell.

    >>> markdown("a|b <!-- x --> [c](d) `e`\\n")
    'a\\\\|b &lt;!-- x --&gt; \\\\[c\\\\](d) \\\\`e\\\\`\\\\\\\\n'
    """
    return html.escape(MARKS.sub(r"\\\g<0>", printable(content)), quote=False)


def as_markdown(table: Table) -> str:
    """Return a Markdown table."""
    header, *rows = ([markdown(field) for field in line] for line in (table.header, *table.rows))
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ["---"] * len(header), *rows))


def as_html(table: Table, anchors: Mapping[Cell, str] | None = None) -> str:
    """Return an HTML table that scrolls in its own box.

    The columns that name a row become one. A name that is the same in all rows, for example the data set, is in the
    header only.

    Args:
        table: the table.
        anchors: for each cell, the anchor on the page of its runs, to which its row links.
    """
    anchors = anchors or {}
    named = [i for i, name in enumerate(table.header) if name in CELL_COLUMNS] or [0]
    same = [i for i in named if len({row[i] for row in table.rows}) == 1 and len(table.rows) > 1]
    different = [i for i in named if i not in same] or named
    rest = [i for i in range(len(table.header)) if i not in named]
    shared = " ".join(table.rows[0][i] for i in same) if different != named else ""
    first = f"{shared}: " * bool(shared) + ", ".join(table.header[i] for i in different)
    head = "".join(tag("th", text(name), scope="col") for name in (first, *(table.header[i] for i in rest)))
    lines = []
    for number, row in enumerate(table.rows):
        links = table.links[number] if table.links else {}
        cell = table.cells[number] if table.cells else None
        name = _link(" ".join(row[i] for i in different if row[i]), None if links or not cell else anchors.get(cell))
        fields = (_field(row[i], anchors.get(links[i]) if i in links else None) for i in rest)
        lines.append(tag("tr", tag("th", name, scope="row"), *fields))
    body = tag("table", tag("thead", tag("tr", head)), tag("tbody", *lines))
    return tag("div", body, class_="scroll", tabindex="0")


def _link(content: str, anchor: str | None) -> str:
    return tag("a", text(content), href=f"#{anchor}") if anchor else text(content)


def _field(content: str, anchor: str | None) -> str:
    verdict = VERDICT_CLASSES.get(content.rpartition(" ")[2])
    return tag("td", _link(content, anchor), **({"class": verdict} if verdict else {}))

"""The paper's numbers beside ours, cell by cell."""

from __future__ import annotations

from sqakd.report.charts.dumbbells import Pair, draw_pairs
from sqakd.report.charts.svg import tag
from sqakd.report.methods import method, slots
from sqakd.report.pictures.figure import facet, facets, figure, legend, nothing
from sqakd.report.records import Results
from sqakd.report.rows import Row, paper_rows
from sqakd.report.statistics import mean_std
from sqakd.report.tables import show, show_difference

PAPER = tag("path", class_="paper", d="M13 0V12")


def paper(results: Results) -> str:
    """One chart for each network of a table of which we have run something."""
    known = slots([*results.cells, *(cell for cells in results.paper.values() for cell in cells)])
    charts, names, missing = [], set(), []
    for table in results.paper:
        rows = [row for row in paper_rows(results, table) if row.paper("top1") is not None]
        ours = {row.cell.network for row in rows if row.runs}
        if not ours:
            missing.append(f"{table} ({len(rows)})")
        for network in sorted(ours):
            some = [row for row in rows if row.cell.network == network]
            names |= {method(row.cell) for row in some if row.runs}
            title = " ".join([table, *network])
            pairs = [_pair(row, known[method(row.cell)]) for row in some]
            charts.append(facet(title, draw_pairs(pairs, label=f"The paper's top-1 and ours, {title}")))
    unseen = (
        f"None of these runs is a cell of: {', '.join(missing)} (published numbers in brackets). Their tables show what"
        " is published and stay empty on our side."
        if missing
        else ""
    )
    if not charts:
        return nothing(unseen or "No published numbers were read.")
    return figure(
        legend(names, known, (PAPER, "published")),
        facets(charts, wide=True),
        caption="Top-1 in percent, last epoch, mean over seeds; bars: one standard deviation to each side. The"
        f" published number is a stroke; nobody published its spread. {unseen}".strip(),
    )


def _pair(row: Row, slot: int) -> Pair:
    values, published = row.ours("top1", "last"), row.paper("top1")
    mean, std = mean_std(values) if values else (None, None)
    title = f"{row.cell}: published {published:.2f}"
    title += f", ours {show(values)}, difference {show_difference(row.to_paper)}" if values else ", not run here"
    name = " ".join(word for word in (row.cell.quantizer, row.cell.bits, row.cell.kd) if word != "none")
    return Pair(name, slot, published, mean, std if len(values) > 1 else None, title)

"""Published numbers next to ours, cell by cell."""

from __future__ import annotations

from sqakd.report.charts.dumbbells import Pair, draw_pairs
from sqakd.report.charts.svg import tag
from sqakd.report.comparisons import Comparison, paper_comparisons
from sqakd.report.figure import Chart, Picture, method_marks, nothing
from sqakd.report.methods import method, slots
from sqakd.report.result_tables import show, show_difference
from sqakd.report.results import Results
from sqakd.report.statistics import mean_std

PAPER = tag("path", class_="paper", d="M13 0V12")


def paper(results: Results) -> str:
    """Return the picture with one chart for each network of a published table that we have run."""
    known = slots([*results.cells, *(cell for cells in results.paper.values() for cell in cells)])
    charts, names, missing = [], set(), []
    for table in results.paper:
        lines = [line for line in paper_comparisons(results, table) if line.paper("top1") is not None]
        ours = {line.cell.network for line in lines if line.runs}
        if not ours:
            missing.append(f"{table} ({len(lines)})")
        for network in sorted(ours):
            of_network = [line for line in lines if line.cell.network == network]
            names |= {method(line.cell) for line in of_network if line.runs}
            title = " ".join([table, *network])
            pairs = [_pair(line, known[method(line.cell)]) for line in of_network]
            charts.append(Chart(title, draw_pairs(pairs, label=f"Published top-1 and ours, {title}")))
    not_run = f"No run is a cell of: {', '.join(missing)} (number of published cells in brackets)." if missing else ""
    if not charts:
        return nothing(not_run or "No published numbers were read.")
    caption = (
        "Top-1 in percent, last epoch, mean over seeds; error bars: one standard deviation on each side. The published"
        f" number is a stroke; no standard deviation was published. {not_run}"
    )
    return Picture(charts, caption.strip(), [*method_marks(names, known), (PAPER, "published")], wide=True).html()


def _pair(line: Comparison, slot: int) -> Pair:
    values, published = line.ours("top1", "last"), line.paper("top1")
    mean, std = mean_std(values) if values else (None, None)
    title = f"{line.cell}: published {published:.2f}"
    title += f", ours {show(values)}, difference {show_difference(line.to_paper)}" if values else ", no run"
    name = " ".join(part for part in (line.cell.quantizer, line.cell.bits, line.cell.kd) if part != "none")
    return Pair(name, slot, published, mean, std if len(values) > 1 else None, title)

"""Learning curves of each cell, one chart for each quantizer and bits, one line for each way to train."""

from __future__ import annotations

from sqakd.report.charts.lines import MOST, Line, draw_lines
from sqakd.report.charts.svg import padded
from sqakd.report.methods import by_slot, method, slots
from sqakd.report.pictures.figure import (
    REFERENCE,
    UNITS,
    bits_in_order,
    facet,
    facets,
    figure,
    float_line,
    legend,
    main_score,
    named,
    nothing,
    quantized,
)
from sqakd.report.records import Cell, Finished, Results
from sqakd.report.statistics import mean_std
from sqakd.report.tables import show

WHAT = {"top1": "Top-1", "agreement": "No labels: agreement with the teacher"}


def curves(results: Results) -> str:
    """Mean over seeds with a band of one standard deviation."""
    known, groups = slots(results.cells), quantized(results)
    score = main_score((cell for cells in groups.values() for cell in cells), results)
    charts: list[str] = []
    names: set[str] = set()
    for network, cells in groups.items():
        reference = float_line(results, network, score)
        for bits in bits_in_order(cells):
            lines: dict[str, dict[str, Line]] = {}
            for cell in cells:
                if cell.bits == bits and (line := _line(cell, results, score, known[method(cell)])):
                    lines.setdefault(cell.quantizer, {})[method(cell)] = line
            if not lines:
                continue
            ends = _ends([line for some in lines.values() for line in some.values()], reference)
            for quantizer in sorted(lines):
                names |= lines[quantizer].keys()
                title = named(network, groups, quantizer, bits)
                drawn = [lines[quantizer][name] for name in by_slot(lines[quantizer], known)]
                last = max(line.x[-1] for line in drawn)
                label = f"{UNITS[score]} by epoch, {title}"
                svg = draw_lines(drawn, ends, last, unit=UNITS[score], label=label, reference=reference)
                charts.append(facet(title, svg))
    if not charts:
        return nothing("No quantized run here has kept its metrics.csv.")
    return figure(
        legend(names, known, (REFERENCE, "float run, last epoch")),
        facets(charts),
        caption=f"{WHAT[score]} on the validation images after each epoch: mean over seeds, with a band of one standard"
        " deviation to each side where there is more than one seed. Charts of the same bits share their scale, which"
        f" leaves out the lowest epochs of the first quarter. At most {MOST} epochs of a run are drawn.",
    )


def _line(cell: Cell, results: Results, score: str, slot: int) -> Line | None:
    runs = [by_epoch for run in results.cells[cell] if (by_epoch := _curve(run, score))]
    if not runs:
        return None
    epochs = sorted(set.intersection(*(set(run) for run in runs)))
    if not epochs:
        return None
    values = [mean_std([run[epoch] for run in runs]) for epoch in epochs]
    band = [std for _, std in values] if len(runs) > 1 else []
    title = f"{cell}: {show([run[epochs[-1]] for run in runs])} after epoch {epochs[-1]}"
    return Line(slot, epochs, [mean for mean, _ in values], band, title)


def _curve(run: Finished, score: str) -> dict[int, float]:
    """A score in percent by epoch, counted from 1."""
    key = f"val/{score}"
    return {int(row["epoch"]) + 1: 100 * row[key] for row in run.curve if key in row and "epoch" in row}


def _ends(lines: list[Line], reference: tuple[float, str] | None) -> tuple[float, float]:
    """Scale that shows the last three quarters of every curve in full."""
    values = [value for line in lines for value in line.y[len(line.y) // 4 :]]
    return padded([*values, *(line.y[-1] for line in lines), *([reference[0]] if reference else [])])

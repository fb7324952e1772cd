"""Learning curves: a chart for each network, quantizer and bits, with a line for each training method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from sqakd.report.cells import Cell
from sqakd.report.charts.lines import MOST_POINTS, Line, draw_lines
from sqakd.report.charts.svg import padded
from sqakd.report.csv_files import Numbers
from sqakd.report.figure import REFERENCE, Chart, Picture, method_marks, nothing
from sqakd.report.methods import by_slot, method, slots
from sqakd.report.pictures.selection import (
    UNITS,
    bits_in_order,
    by_score,
    chart_title,
    float_line,
    listed,
    quantized,
    quantized_cells,
)
from sqakd.report.results import Results
from sqakd.report.statistics import mean_std


@dataclass(frozen=True)
class Metric:
    """A column of metrics.csv.

    Attributes:
        name: name of the column; shares are drawn in percent.
        unit: name or unit of y.
        description: beginning of the caption.
        score: score of the float run that is drawn for comparison; empty for none.
        note: end of the caption.
    """

    name: str
    unit: str
    description: str
    score: str = ""
    note: str = ""

    @property
    def factor(self) -> float:
        """From the values in the file to those in the chart."""
        return 100.0 if self.unit.endswith("%") else 1.0


ON_VALIDATION = "on the validation images after each epoch"
TOP1 = Metric("val/top1", UNITS["top1"], f"Top-1 {ON_VALIDATION}", "top1")
UNLABELLED = Metric(
    "val/agreement", UNITS["agreement"], f"No labels: agreement with the teacher {ON_VALIDATION}", "agreement"
)
AGREEMENT = Metric("val/agreement", UNITS["agreement"], f"Agreement with the teacher {ON_VALIDATION}")
DIVERGENCE = Metric("val/kl", "divergence", f"Divergence from the teacher {ON_VALIDATION}")
LOSS = Metric(
    "train/loss",
    "loss",
    "Training loss, mean of each epoch",
    note=" The losses of different training methods have different parts: compare shapes of lines, not their heights.",
)


MAIN = {"top1": TOP1, "agreement": UNLABELLED}


def curves(results: Results) -> str:
    """Return the curves of the main score: top-1, or the agreement with the teacher where there are no labels."""
    groups = by_score(results, quantized_cells(results))
    used = dict.fromkeys(MAIN[group.score] for group in groups) or {UNLABELLED: None}
    drawn = [(MAIN[group.score], cells, partial(group.title, groups)) for group, cells in groups.items()]
    return _picture(drawn, used, results)


def loss(results: Results) -> str:
    """Return the curves of the training loss."""
    return curves_of(LOSS, results)


def agreement_curves(results: Results) -> str:
    """Return the curves of the agreement with the teacher."""
    return curves_of(AGREEMENT, results)


def divergence(results: Results) -> str:
    """Return the curves of the divergence from the teacher."""
    return curves_of(DIVERGENCE, results)


def curves_of(metric: Metric, results: Results) -> str:
    """Return the curves of a metric of all quantized runs."""
    groups = quantized(results)
    return _picture(
        [(metric, cells, partial(chart_title, network, groups)) for network, cells in groups.items()], [metric], results
    )


def _picture(
    groups: Iterable[tuple[Metric, Sequence[Cell], Callable[..., str]]], metrics: Iterable[Metric], results: Results
) -> str:
    """Return curves: mean over seeds with a band of one standard deviation on each side.

    Args:
        groups: a metric with the cells that are drawn next to each other, and the title of a chart from its names.
        metrics: all metrics, for the caption.
        results: all runs.
    """
    charts: list[Chart] = []
    names: set[str] = set()
    has_reference = False
    for metric, cells, title in groups:
        drawn, methods, reference = _charts(metric, cells, title, results)
        charts += drawn
        names |= methods
        has_reference |= bool(drawn) and reference
    if not charts:
        return nothing(f"No quantized run here has {' or '.join(m.name for m in metrics)} in its metrics.csv.")
    described = listed(f"{metric.description} ({metric.name})" for metric in metrics)
    caption = (
        f"{described}: mean over seeds; with several seeds, a band of one standard deviation"
        " on each side. Charts of the same bits have the same scale, which may cut off the first quarter of the epochs."
        f" At most {MOST_POINTS} epochs of a run are drawn.{''.join(metric.note for metric in metrics)}"
    )
    legend = method_marks(names, slots(results.cells)) + [(REFERENCE, "float run, last epoch")] * has_reference
    return Picture(charts, caption, legend).html()


def _charts(
    metric: Metric, cells: Sequence[Cell], title: Callable[..., str], results: Results
) -> tuple[list[Chart], set[str], bool]:
    """Return a chart for each quantizer and bits, the methods in them, and whether the float run is drawn."""
    known, charts = slots(results.cells), []
    names: set[str] = set()
    reference = float_line(results, cells[0].network, metric.score, cells) if metric.score else None
    for bits in bits_in_order(cells):
        lines: dict[str, dict[str, Line]] = {}
        for cell in cells:
            if cell.bits == bits and (line := _line(cell, results, metric, known[method(cell)])):
                lines.setdefault(cell.quantizer, {})[method(cell)] = line
        if not lines:
            continue
        drawn_y = [line.y for some in lines.values() for line in some.values()]
        ends = ends_of(drawn_y, [reference[0]] if reference else [], metric)
        for quantizer in sorted(lines):
            names |= lines[quantizer].keys()
            name = title(quantizer, bits)
            drawn = [lines[quantizer][each] for each in by_slot(lines[quantizer], known)]
            last = max(line.x[-1] for line in drawn)
            label = f"{metric.unit} ({metric.name}) by epoch, {name}"
            svg = draw_lines(drawn, ends, last, unit=metric.unit, label=label, reference=reference)
            charts.append(Chart(name, svg))
    return charts, names, reference is not None


def _line(cell: Cell, results: Results, metric: Metric, slot: int) -> Line | None:
    runs = [curve for run in results.cells[cell] if (curve := by_epoch(run.curve, metric))]
    if not runs:
        return None
    epochs = sorted(set.intersection(*(set(run) for run in runs)))
    if not epochs:
        return None
    values = [mean_std([run[epoch] for run in runs]) for epoch in epochs]
    band = [std for _, std in values] if len(runs) > 1 else []
    title = f"{cell}: {_show(*values[-1], len(runs), metric)} after epoch {epochs[-1]}"
    return Line(slot, epochs, [mean for mean, _ in values], band, title)


def _show(mean: float, std: float, count: int, metric: Metric) -> str:
    form = ".2f" if metric.factor == 100 else ".3g"
    return f"{mean:{form}} ± {std:{form}} ({count})" if count > 1 else f"{mean:{form}} (1)"


def by_epoch(rows: Numbers, metric: Metric) -> dict[int, float]:
    """Return the finite values of a metric of metrics.csv by epoch, counted from 1."""
    values = ((row.get("epoch", math.nan), row.get(metric.name, math.nan)) for row in rows)
    return {
        int(epoch) + 1: metric.factor * value
        for epoch, value in values
        if math.isfinite(epoch) and math.isfinite(value)
    }


def ends_of(curves: Iterable[Sequence[float]], references: Iterable[float], metric: Metric) -> tuple[float, float]:
    """Return the ends of a scale that shows the last three quarters of every curve, and all references, in full."""
    values = [value for curve in curves for value in [*curve[len(curve) // 4 :], curve[-1]]]
    values += references
    least = 0.5 if metric.factor == 100 else 0.02 * max(map(abs, values)) or 0.02
    return padded(values, least=least)

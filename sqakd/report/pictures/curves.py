"""Learning curves: a chart for each network, quantizer and bits, with a line for each training method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqakd.report.cells import Cell
from sqakd.report.charts.lines import MOST_POINTS, Line, draw_lines
from sqakd.report.charts.svg import padded
from sqakd.report.csv_files import Numbers
from sqakd.report.figure import REFERENCE, Chart, Picture, method_marks, nothing
from sqakd.report.methods import by_slot, method, slots
from sqakd.report.pictures.selection import (
    UNITS,
    bits_in_order,
    chart_title,
    float_line,
    main_score,
    quantized,
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


def curves(results: Results) -> str:
    """Return the curves of the main score."""
    score = main_score((cell for cells in quantized(results).values() for cell in cells), results)
    return curves_of(TOP1 if score == "top1" else UNLABELLED, results)


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
    """Return the curves of a metric: mean over seeds with a band of one standard deviation on each side."""
    known, groups = slots(results.cells), quantized(results)
    charts: list[Chart] = []
    names: set[str] = set()
    for network, cells in groups.items():
        reference = float_line(results, network, metric.score) if metric.score else None
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
                title = chart_title(network, groups, quantizer, bits)
                drawn = [lines[quantizer][name] for name in by_slot(lines[quantizer], known)]
                last = max(line.x[-1] for line in drawn)
                label = f"{metric.unit} ({metric.name}) by epoch, {title}"
                svg = draw_lines(drawn, ends, last, unit=metric.unit, label=label, reference=reference)
                charts.append(Chart(title, svg))
    if not charts:
        return nothing(f"No quantized run here has {metric.name} in its metrics.csv.")
    caption = (
        f"{metric.description} ({metric.name}): mean over seeds; with several seeds, a band of one standard deviation"
        " on each side. Charts of the same bits have the same scale, which may cut off the first quarter of the epochs."
        f" At most {MOST_POINTS} epochs of a run are drawn.{metric.note}"
    )
    legend = method_marks(names, known) + ([(REFERENCE, "float run, last epoch")] if metric.score else [])
    return Picture(charts, caption, legend).html()


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
    """Return a metric of metrics.csv by epoch, counted from 1."""
    name = metric.name
    return {int(row["epoch"]) + 1: metric.factor * row[name] for row in rows if name in row and "epoch" in row}


def ends_of(curves: Iterable[Sequence[float]], references: Iterable[float], metric: Metric) -> tuple[float, float]:
    """Return the ends of a scale that shows the last three quarters of every curve, and all references, in full."""
    values = [value for curve in curves for value in [*curve[len(curve) // 4 :], curve[-1]]]
    values += references
    least = 0.5 if metric.factor == 100 else 0.02 * max(map(abs, values)) or 0.02
    return padded(values, least=least)

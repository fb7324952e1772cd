"""Curves over epochs of each cell, one chart for each quantizer and bits, one line for each way to train."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Metric:
    """A column of metrics.csv.

    Attributes:
        name: of the column; shares are drawn in percent.
        unit: what y is.
        what: it is, as the caption begins.
        score: of the float run, which is drawn to compare with; empty for none.
        note: as the caption ends.
    """

    name: str
    unit: str
    what: str
    score: str = ""
    note: str = ""

    @property
    def factor(self) -> float:
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
    note=" Different ways to train sum different parts: compare the shapes of their lines, not the heights.",
)


def curves(results: Results) -> str:
    """The main score over epochs: mean over seeds with a band of one standard deviation."""
    score = main_score((cell for cells in quantized(results).values() for cell in cells), results)
    return curves_of(TOP1 if score == "top1" else UNLABELLED, results)


def loss(results: Results) -> str:
    """The training loss over epochs."""
    return curves_of(LOSS, results)


def agreement_curves(results: Results) -> str:
    """Agreement with the teacher over epochs."""
    return curves_of(AGREEMENT, results)


def divergence(results: Results) -> str:
    """Divergence from the teacher over epochs."""
    return curves_of(DIVERGENCE, results)


def curves_of(metric: Metric, results: Results) -> str:
    """One metric over epochs: mean over seeds with a band of one standard deviation."""
    known, groups = slots(results.cells), quantized(results)
    charts: list[str] = []
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
            ends = _ends([line for some in lines.values() for line in some.values()], reference, metric)
            for quantizer in sorted(lines):
                names |= lines[quantizer].keys()
                title = named(network, groups, quantizer, bits)
                drawn = [lines[quantizer][name] for name in by_slot(lines[quantizer], known)]
                last = max(line.x[-1] for line in drawn)
                label = f"{metric.unit} ({metric.name}) by epoch, {title}"
                svg = draw_lines(drawn, ends, last, unit=metric.unit, label=label, reference=reference)
                charts.append(facet(title, svg))
    if not charts:
        return nothing(f"No quantized run here has {metric.name} in its metrics.csv.")
    return figure(
        legend(names, known, *([(REFERENCE, "float run, last epoch")] if metric.score else [])),
        facets(charts),
        caption=f"{metric.what} ({metric.name}): mean over seeds, with a band of one standard deviation to each side"
        " where there is more than one seed. Charts of the same bits share their scale, which leaves out what only the"
        f" first quarter of the epochs reaches. At most {MOST} epochs of a run are drawn.{metric.note}",
    )


def _line(cell: Cell, results: Results, metric: Metric, slot: int) -> Line | None:
    runs = [by_epoch for run in results.cells[cell] if (by_epoch := _curve(run, metric))]
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


def _curve(run: Finished, metric: Metric) -> dict[int, float]:
    """A metric by epoch, counted from 1."""
    name = metric.name
    return {int(row["epoch"]) + 1: metric.factor * row[name] for row in run.curve if name in row and "epoch" in row}


def _ends(lines: list[Line], reference: tuple[float, str] | None, metric: Metric) -> tuple[float, float]:
    """Scale that shows the last three quarters of every curve in full."""
    values = [value for line in lines for value in line.y[len(line.y) // 4 :]]
    values += [*(line.y[-1] for line in lines), *([reference[0]] if reference else [])]
    least = 0.5 if metric.factor == 100 else 0.02 * max(map(abs, values)) or 0.02
    return padded(values, least=least)

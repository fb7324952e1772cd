"""Pictures of an export's report: layers, latency, and accuracy against size and time of all exports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqakd.export.artefacts import UNCOUNTED
from sqakd.report.charts.bars import Bar, BarRow, draw_bars
from sqakd.report.charts.scatter import Spot
from sqakd.report.charts.svg import colour, marker, tag
from sqakd.report.figure import Chart, Picture
from sqakd.report.pictures.pareto import pareto_chart
from sqakd.runs.export_record import FLOAT_FILE, ExportRecord, Timed

ORANGE, BLUE, GREY = 0, 1, 7  # slots of the report's colours
UNKNOWN = "?"


def layers_picture(layers: Sequence[Mapping[str, Any]]) -> Picture:
    """Return size and share of wrong sums of each layer; `layers` as in layers.json."""
    if not layers:
        return Picture([], "")
    charts = [
        Chart("weights", draw_bars([_size_row(layer) for layer in layers], x_name="kB", label="size of each layer")),
        Chart(
            "sums with another code than in training",
            draw_bars(
                [_wrong_row(layer) for layer in layers],
                x_name="wrong sums per million reachable sums",
                label="wrong sums of each layer",
            ),
        ),
    ]
    caption = (
        "Weights: size at 32 bits (pale) and at their own bits. Sums: of a million sums that any input can produce,"
        " those that get another code than in training; behind each bar, their number. A layer with real output has no"
        " codes to compare."
    )
    legend = [(_block(BLUE, pale=True), "float"), (_block(BLUE), "at its bits"), (_block(ORANGE), "wrong sums")]
    return Picture(charts, caption, legend, wide=True)


def _size_row(layer: Mapping[str, Any]) -> BarRow:
    weights = math.prod(layer["shape"])
    real, packed = 4 * weights / 1000, weights * layer["w_bits"] / 8000
    title = f"{layer['name']}: {weights:,} weights"
    bars = [Bar(real, BLUE, f"{title}, {real:.1f} kB in float", pale=True)]
    bars.append(Bar(packed, BLUE, f"{title}, {packed:.2f} kB at {layer['w_bits']} bits"))
    return BarRow(layer["name"], bars, f"{real:.3g} → {packed:.2g}")


def _wrong_row(layer: Mapping[str, Any]) -> BarRow:
    if "wrong_sums" not in layer:
        return BarRow(layer["name"], [Bar(0, ORANGE, "")], "real output")
    wrong, reachable = layer["wrong_sums"], layer["reachable_sums"]
    title = f"{layer['name']}: {wrong:,} of {reachable:,} sums"
    return BarRow(layer["name"], [Bar(1e6 * wrong / (reachable or 1), ORANGE, title)], f"{wrong:,}")


def latency_picture(rows: Sequence[Timed]) -> Picture:
    """Return the median time per image of each runtime, one chart for each batch size and number of threads."""
    charts = []
    for batch, threads in sorted({(row.batch, row.threads) for row in rows}):
        here = [row for row in rows if (row.batch, row.threads) == (batch, threads)]
        title = f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}"
        svg = draw_bars([_time_row(row) for row in here], x_name="ms per image, median", label=f"latency, {title}")
        charts.append(Chart(title, svg))
    caption = "Median time of one image. Behind each bar: how many times faster than ONNX Runtime on the float file."
    legend = [(_block(GREY), "float file"), (_block(BLUE), "exported file")]
    if any(row.profile == UNCOUNTED for row in rows):
        legend.append((_block(BLUE, pale=True), "without counted layers"))
    return Picture(charts, caption, legend, wide=True)


def _time_row(row: Timed) -> BarRow:
    time = row.p50_ms / row.batch
    slot = GREY if row.profile == FLOAT_FILE else BLUE
    title = f"{row.name} {row.version}: {time:.3g} ms per image"
    bar = Bar(time, slot, title, pale=row.profile == UNCOUNTED)
    return BarRow(row.name, [bar], f"{row.ratio:.2f}x" if row.ratio else "")


def pareto_picture(exports: Iterable[ExportRecord], this: ExportRecord) -> Picture:
    """Return the accuracy of exports against the size of their file and the time of one image.

    Args:
        exports: the exports that are compared, with `this` one.
        this: the export that is marked.
    """
    by_size, by_time = [], []
    has_labels = _has_labels(this)
    for export in exports:
        if not export.verify or _has_labels(export) != has_labels:  # agreement and accuracy are not comparable
            continue
        slot, value, name = ORANGE if export is this else BLUE, score(export), _name(export)
        size = export.sizes.file / 1000
        if size > 0:
            by_size.append(Spot(slot, size, value, name, f"{name}: {value:.2f} %, {size:.1f} kB"))
        time = fastest(export)
        if time is not None and time > 0:
            by_time.append(Spot(slot, time, value, name, f"{name}: {value:.2f} %, {time:.3g} ms"))
    unit = "top-1 %" if has_labels else "agreement %"
    charts = []
    if by_size:
        charts.append(pareto_chart("size", by_size, "model.onnx, kB", unit))
    if by_time:
        charts.append(pareto_chart("latency", by_time, "ms per image, fastest runtime, batch 1", unit))
    caption = (
        "Accuracy of all exports of this data set in their first runtime: top-1, or agreement with the trained network"
        " where this export has no labels. The line joins the exports that no smaller or faster one reaches (Pareto"
        " front)."
    )
    legend = [(marker(ORANGE, 13, 6), "this export"), (marker(BLUE, 13, 6), "others")]
    return Picture(charts, caption, legend, wide=True)


def _has_labels(export: ExportRecord) -> bool:
    return bool(export.verify) and export.verify[0].top1 is not None


def _name(export: ExportRecord) -> str:
    bits = f"W{export.w_bits or UNKNOWN}A{export.a_bits or UNKNOWN}"
    return f"{export.model or UNKNOWN} {export.quantizer or UNKNOWN} {bits} {export.profile}"


def score(export: ExportRecord) -> float:
    """Return the top-1 of an export in its first runtime, in percent; without labels its agreement."""
    verdict = export.verify[0]
    return 100 * (verdict.agreement if verdict.top1 is None else verdict.top1)


def fastest(export: ExportRecord) -> float | None:
    """Return the median milliseconds of one image in the fastest runtime; None if nothing was measured."""
    rows = export.benchmark.rows if export.benchmark else []
    return min((row.p50_ms for row in rows if row.batch == 1 and row.profile == export.profile), default=None)


def _block(slot: int, *, pale: bool = False) -> str:
    classes = f"block {'pale ' if pale else ''}{colour(slot)}"
    return tag("rect", class_=classes, x=1, y=1, width=24, height=10)

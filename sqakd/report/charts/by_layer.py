"""Charts over the layers of a network: clip ranges as bars, code usage as a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqakd.report.charts.svg import Frame, Scale, at, colour, number, tag, tip

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 280.0, 36.0, 6.0, 8.0, 20.0
RANGES_HEIGHT, CODES_HEIGHT = 130.0, 110.0
MOST_CODES = 16  # rows of a heat map; of more codes, neighbours share a row
# Smallest share of a layer's elements for each shade of a heat map; a code that is never used has no shade.
SHADES = (0.0, 0.01, 0.03, 0.1, 0.2, 0.35, 0.6)


@dataclass(frozen=True)
class RangeBar:
    """The range of one layer, and its tooltip."""

    layer: int
    low: float
    high: float
    title: str


@dataclass(frozen=True)
class Usage:
    """The share of the elements of one layer that each code has, and the tooltip."""

    layer: int
    shares: Mapping[int, float]
    title: str


def draw_ranges(bars: Sequence[RangeBar], layers: int, ends: tuple[float, float], slot: int, *, label: str) -> str:
    """Return a chart with a bar from the lower to the upper end of the range of each layer.

    Args:
        bars: the ranges.
        layers: number of layers.
        ends: lowest and highest value of y.
        slot: number of the method, which gives the colour.
        label: description of the chart for screen readers.
    """
    frame = _frame(RANGES_HEIGHT, layers, ends)
    width = 0.72 * (frame.x(1) - frame.x(0))
    parts = [frame.axes(_layer_labels(layers), [(value, f"{value:g}") for value in frame.y.ticks(4)])]
    if ends[0] < 0 < ends[1]:
        parts.append(tag("path", class_="zero", d=f"M{LEFT:g} {number(frame.y(0))}H{WIDTH - RIGHT:g}"))
    rows = [
        tag("path", tip(bar.title), d=f"M{at(frame.x(bar.layer), frame.y(bar.low))}V{number(frame.y(bar.high))}")
        for bar in bars
    ]
    return frame.svg(*parts, tag("g", *rows, class_=f"range {colour(slot)}", stroke_width=number(width)), label=label)


def draw_codes(usages: Sequence[Usage], layers: int, *, label: str) -> str:
    """Return a heat map with the layers from left to right and the codes from bottom to top.

    Args:
        usages: one for each layer; two layers may have different codes.
        layers: number of layers.
        label: description of the chart for screen readers.
    """
    codes = sorted({code for usage in usages for code in usage.shares})
    per_row = -(-len(codes) // MOST_CODES)
    rows = [codes[i : i + per_row] for i in range(0, len(codes), per_row)]
    frame = _frame(CODES_HEIGHT, layers, (-0.5, len(rows) - 0.5))
    shown = [0, len(rows) - 1] if len(rows) > 5 else range(len(rows))
    parts = [frame.axes(_layer_labels(layers), [(row, _name(rows[row])) for row in shown], grid=False)]
    # The squares are drawn in units of layers and codes, which makes each of them six characters long.
    boxes = [""] * len(SHADES)
    for usage in usages:
        for row, members in enumerate(rows):
            share = sum(usage.shares.get(code, 0.0) for code in members)
            if share > 0:
                boxes[sum(share >= least for least in SHADES) - 1] += f"M{usage.layer} {row}h1"
    squares = [tag("path", class_=f"heat h{shade}", d=d) for shade, d in enumerate(boxes) if d]
    columns = [tag("path", tip(usage.title), d=f"M{usage.layer} -.5h1v{len(rows)}h-1z") for usage in usages]
    width, height = frame.x(1) - frame.x(0), frame.y(1) - frame.y(0)
    place = f"translate({at(frame.x(-0.5), frame.y(0))}) scale({width:.4g} {height:.4g})"
    return frame.svg(*parts, tag("g", *squares, tag("g", *columns, class_="column"), transform=place), label=label)


def _frame(height: float, layers: int, ends: tuple[float, float]) -> Frame:
    x = Scale(-0.5, max(layers, 2) - 0.5, LEFT, WIDTH - RIGHT)
    return Frame(WIDTH, height, x, Scale(*ends, height - BOTTOM, TOP))


def _layer_labels(layers: int) -> list[tuple[float, str]]:
    step = max(1, round(layers / 4))
    return [(layer, str(layer) if layer else "layer 0") for layer in range(0, layers, step)]


def _name(codes: Sequence[int]) -> str:
    return str(codes[0]) if len(codes) == 1 else f"{codes[0]}.."

"""Line charts over epochs, with a band around each line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqakd.report.charts.svg import Frame, Scale, colour, marker, number, polyline, tag, tip

WIDTH, HEIGHT = 280.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 36.0, 10.0, 22.0, 22.0
MOST_POINTS = 120  # per line; the chart is about twice as many pixels wide
MARKERS = 4  # per line


@dataclass(frozen=True)
class Line:
    """The line of one method.

    Attributes:
        slot: number of the method.
        x, y: points of the line.
        band: half the height of the band at each point; empty for none.
        title: tooltip.
    """

    slot: int
    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[float]
    title: str


def thinned(count: int, most: int = MOST_POINTS) -> list[int]:
    """Return the positions of at most `most` of `count` points, evenly spaced, with the first and the last.

    >>> thinned(3), thinned(11, 3)
    ([0, 1, 2], [0, 5, 10])
    """
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def draw_lines(
    lines: Sequence[Line],
    ends: tuple[float, float],
    last: float,
    *,
    unit: str,
    label: str,
    reference: tuple[float, str] | None = None,
) -> str:
    """Return a chart of the epochs 1 .. `last`; points outside of the scale of y are cut off.

    Args:
        lines: one for each method; at most `MOST_POINTS` points of each are drawn.
        ends: lowest and highest value of y.
        last: last epoch.
        unit: name or unit of y.
        label: description of the chart for screen readers.
        reference: a value to compare with, drawn dashed, and its tooltip.
    """
    x = Scale(1, max(last, 2), LEFT, WIDTH - RIGHT)
    y = Scale(*ends, HEIGHT - BOTTOM, TOP)
    frame = Frame(WIDTH, HEIGHT, x, y)
    epochs = [value for value in x.ticks(4) if value > 1 + last / 8 and value == int(value)]
    heights = [(value, f"{value:g}") for value in y.ticks(4) if not unit.endswith("%") or value <= 100]
    parts = [frame.axes([(1, "epoch 1"), *((value, f"{value:g}") for value in epochs)], heights, unit)]
    if reference:
        value, title = reference
        parts.append(
            tag("path", tip(title), class_="reference", d=f"M{LEFT:g} {number(y.clipped(value))}H{WIDTH - RIGHT:g}")
        )
    drawn, markers = [], []
    for line in lines:
        kept = thinned(len(line.x))
        points = [(x(line.x[i]), y(line.y[i])) for i in kept]
        if line.band:
            above = [(x(line.x[i]), y(line.y[i] + line.band[i])) for i in kept]
            below = [(x(line.x[i]), y(line.y[i] - line.band[i])) for i in reversed(kept)]
            drawn.append(tag("path", class_=f"band {colour(line.slot)}", d=polyline(above + below) + "z"))
        drawn.append(tag("path", tip(line.title), class_=f"line {colour(line.slot)}", d=polyline(points)))
        # The markers of each method are shifted a little, so that those of equal lines do not cover each other.
        step = max(1, len(points) // MARKERS)
        marked = points[(len(points) - 1 - line.slot * max(1, step // 5)) % step :: step]
        markers += [marker(line.slot, *at, title=line.title) for at in marked if TOP <= at[1] <= HEIGHT - BOTTOM]
    return frame.svg(*parts, frame.inside(*drawn), *markers, label=label)

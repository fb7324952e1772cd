"""Lines over epochs with a band around each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqakd.report.charts.svg import Frame, Scale, colour, marker, number, polyline, tag, tip

WIDTH, HEIGHT = 280.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 36.0, 10.0, 22.0, 22.0
MOST = 120  # points of a line: the chart is about twice as many pixels wide
MARKS = 4  # markers on it


@dataclass(frozen=True)
class Line:
    """One method.

    Attributes:
        slot: of the method.
        x, y: its points.
        band: half the height of the band at each point; empty for none.
        title: what it says under the mouse.
    """

    slot: int
    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[float]
    title: str


def thinned(count: int, most: int = MOST) -> list[int]:
    """Positions of at most so many of `count` points, evenly spread, the first and the last among them.

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
    """A chart of epochs 1 .. `last`; what is below the scale is cut off.

    Args:
        lines: methods; at most `MOST` points of each are drawn.
        ends: lowest and highest value of y.
        last: last epoch.
        unit: what y is.
        label: what the chart shows, in words.
        reference: a value to compare with, dashed, and what it says under the mouse.
    """
    x = Scale(1, max(last, 2), LEFT, WIDTH - RIGHT)
    y = Scale(*ends, HEIGHT - BOTTOM, TOP)
    frame = Frame(WIDTH, HEIGHT, x, y)
    epochs = [value for value in x.ticks(4) if value > 1 + last / 8 and value == int(value)]
    heights = [(value, f"{value:g}") for value in y.ticks(4) if unit != "%" or value <= 100]
    parts = [frame.axes([(1, "epoch 1"), *((value, f"{value:g}") for value in epochs)], heights, unit)]
    if reference:
        value, title = reference
        parts.append(
            tag("path", tip(title), class_="reference", d=f"M{LEFT:g} {number(y.clipped(value))}H{WIDTH - RIGHT:g}")
        )
    drawn, marks = [], []
    for line in lines:
        kept = thinned(len(line.x))
        spots = [(x(line.x[i]), y(line.y[i])) for i in kept]
        if line.band:
            above = [(x(line.x[i]), y(line.y[i] + line.band[i])) for i in kept]
            below = [(x(line.x[i]), y(line.y[i] - line.band[i])) for i in reversed(kept)]
            drawn.append(tag("path", class_=f"band {colour(line.slot)}", d=polyline(above + below) + "z"))
        drawn.append(tag("path", tip(line.title), class_=f"line {colour(line.slot)}", d=polyline(spots)))
        # Each method's markers are a little further on, so that equal lines show all of theirs.
        step = max(1, len(spots) // MARKS)
        marked = spots[(len(spots) - 1 - line.slot * max(1, step // 5)) % step :: step]
        marks += [marker(line.slot, *spot, title=line.title) for spot in marked if TOP <= spot[1] <= HEIGHT - BOTTOM]
    return frame.svg(*parts, frame.inside(*drawn), *marks, label=label)

"""Charts of points with error bars over a few named places, with the methods side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqakd.report.charts.svg import Frame, Scale, colour, marker, number, polyline, tag, text, tip

WIDTH, HEIGHT = 280.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 36.0, 8.0, 22.0, 22.0
BELOW = 6.0  # height above the bottom at which a point below the scale is drawn


@dataclass(frozen=True)
class Point:
    """A marker of one method.

    Attributes:
        place: index of the named place.
        value: y of the marker.
        bar: half the length of the error bar; None for none.
        title: tooltip.
        hollow: whether only the outline is drawn.
    """

    place: int
    value: float
    bar: float | None
    title: str
    hollow: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the error bar."""
        return self.value - (self.bar or 0.0), self.value + (self.bar or 0.0)


@dataclass(frozen=True)
class Series:
    """The points of the method with the number `slot`."""

    slot: int
    points: Sequence[Point]


def draw_points(
    places: Sequence[str],
    series: Sequence[Series],
    ends: tuple[float, float],
    *,
    unit: str,
    label: str,
    line: tuple[float, str] | None = None,
    connected: bool = True,
) -> str:
    """Return a chart of points over named places.

    Args:
        places: names along x.
        series: one for each method, drawn side by side at each place.
        ends: lowest and highest value of y. A point below is drawn at the bottom, with an arrow and its value.
        unit: name or unit of y.
        label: description of the chart for screen readers.
        line: a value to compare with, drawn dashed, and its tooltip.
        connected: whether the points of a method are joined by a line.
    """
    x = Scale(-0.5, len(places) - 0.5, LEFT, WIDTH - RIGHT)
    y = Scale(*ends, HEIGHT - BOTTOM, TOP)
    frame = Frame(WIDTH, HEIGHT, x, y)
    heights = [value for value in y.ticks(5) if not unit.endswith("%") or value <= 100]
    parts = [frame.axes(list(enumerate(places)), [(value, f"{value:g}") for value in heights], unit)]
    if line:
        value, title = line
        parts.append(
            tag("path", tip(title), class_="reference", d=f"M{number(LEFT)} {number(y(value))}H{WIDTH - RIGHT:g}")
        )
    distance = min(15.0, 0.8 * (x(1) - x(0)) / max(len(series), 1))
    for i, method in enumerate(series):
        shift = (i - (len(series) - 1) / 2) * distance
        below = [point for point in method.points if point.value < ends[0]]
        inside = [(x(point.place) + shift, point) for point in method.points if point not in below]
        if connected and len(inside) > 1:
            joined = polyline([(spot, y(point.value)) for spot, point in inside])
            parts.append(tag("path", class_=f"thin {colour(method.slot)}", d=joined))
        bars = "".join(_bar(spot, point, y) for spot, point in inside if point.bar)
        if bars:
            parts.append(tag("path", class_=f"bar {colour(method.slot)}", d=bars))
        parts += [
            marker(method.slot, spot, y(point.value), hollow=point.hollow, title=point.title) for spot, point in inside
        ]
        for point in below:
            spot, bottom = x(point.place) + shift, y(ends[0]) - BELOW
            written = tag("text", text(f"\u2193 {point.value:.1f}"), x=number(spot + 6), y=number(bottom + 3.5))
            parts += [marker(method.slot, spot, bottom, hollow=point.hollow, title=point.title), written]
    return frame.svg(*parts, label=label)


def _bar(x: float, point: Point, y: Scale) -> str:
    low, high = (y.clipped(value) for value in point.ends)
    return f"M{number(x)} {number(low)}V{number(high)}m-2.5 0h5M{number(x - 2.5)} {number(low)}h5"

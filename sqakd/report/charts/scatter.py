"""Scatter charts of a value over its cost, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqakd.report.charts.svg import Frame, Scale, at, colour, marker, number, padded, tag, text

WIDTH, HEIGHT = 360.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 36.0, 14.0, 22.0, 36.0


@dataclass(frozen=True)
class Spot:
    """A marker.

    Attributes:
        slot: number of its method.
        x: cost.
        y: value.
        name: name in the list of the points on the front.
        title: tooltip.
        bar: half the length of the error bar of y; None for none.
        reach: ends of the error bar of x, or None.
    """

    slot: int
    x: float
    y: float
    name: str
    title: str
    bar: float | None = None
    reach: tuple[float, float] | None = None


def front(spots: Sequence[Spot]) -> list[Spot]:
    """Return the Pareto front, cheapest first: each of its points has a higher y than all cheaper points.

    >>> spots = [Spot(0, x, y, "", "") for x, y in ((1, 5), (2, 4), (2, 6), (3, 6))]
    >>> [(spot.x, spot.y) for spot in front(spots)]
    [(1, 5), (2, 6)]
    """
    best: list[Spot] = []
    for spot in sorted(spots, key=lambda spot: (spot.x, -spot.y)):
        if not best or spot.y > best[-1].y:
            best.append(spot)
    return best


def draw_scatter(spots: Sequence[Spot], *, x_name: str, y_name: str, label: str) -> str:
    """Return a chart with the costs on a logarithmic scale.

    Args:
        spots: at least one; x > 0.
        x_name: name and unit of x.
        y_name: name and unit of y.
        label: description of the chart for screen readers.
    """
    costs = [value for spot in spots for value in (spot.x, *(spot.reach or ()))]
    x = Scale(min(costs) / 1.25, max(costs) * 1.25, LEFT, WIDTH - RIGHT, log=True)
    values = [spot.y + sign * (spot.bar or 0.0) for spot in spots for sign in (-1, 1)]
    y = Scale(*padded(values), HEIGHT - BOTTOM, TOP)
    frame = Frame(WIDTH, HEIGHT, x, y)
    heights = [(value, f"{value:g}") for value in y.ticks(5) if value <= 100]
    parts = [frame.axes([(value, f"{value:g}") for value in x.ticks(5)], heights, y_name)]
    parts.append(tag("text", text(x_name), x=number(WIDTH - RIGHT), y=number(HEIGHT - 4), text_anchor="end"))
    best = front(spots)
    steps = f"M{at(x(best[0].x), y(best[0].y))}" + "".join(
        f"H{number(x(spot.x))}V{number(y(spot.y))}" for spot in best[1:]
    )
    parts.append(tag("path", class_="front", d=f"{steps}H{WIDTH - RIGHT:g}"))
    for spot in spots:
        bars = ""
        if spot.bar and spot in best:
            bars += f"M{at(x(spot.x), y(spot.y - spot.bar))}V{number(y(spot.y + spot.bar))}"
        if spot.reach:
            bars += f"M{at(x(spot.reach[0]), y(spot.y))}H{number(x(spot.reach[1]))}"
        if bars:
            parts.append(tag("path", class_=f"bar {colour(spot.slot)}", d=bars))
    parts += [marker(spot.slot, x(spot.x), y(spot.y), title=spot.title) for spot in spots]
    return frame.svg(*parts, label=label)

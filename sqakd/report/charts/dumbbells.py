"""Charts with two numbers per row: the published one as a stroke, ours as a marker with its error bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqakd.report.charts.svg import Frame, Scale, colour, marker, number, padded, tag, text, tip

WIDTH, ROW = 360.0, 22.0
LEFT, RIGHT, TOP, BOTTOM = 150.0, 12.0, 8.0, 22.0


@dataclass(frozen=True)
class Pair:
    """One row of the chart.

    Attributes:
        name: label of the row.
        slot: number of its method.
        paper: the published number.
        ours: our mean, or None without a run.
        bar: half the length of the error bar; None for none.
        title: tooltip.
    """

    name: str
    slot: int
    paper: float | None
    ours: float | None
    bar: float | None
    title: str


def draw_pairs(pairs: Sequence[Pair], *, label: str) -> str:
    """Return a chart with one row for each pair; at least one number must be known."""
    values = [pair.paper for pair in pairs if pair.paper is not None]
    values += [pair.ours + sign * (pair.bar or 0) for pair in pairs if pair.ours is not None for sign in (-1, 1)]
    height = TOP + ROW * len(pairs) + BOTTOM
    x = Scale(*padded(values, least=2), LEFT, WIDTH - RIGHT)
    frame = Frame(WIDTH, height, x, Scale(0, 1, height - BOTTOM, TOP))
    lines = "".join(f"M{number(x(value))} {TOP:g}V{height - BOTTOM:g}" for value in x.ticks(4))
    parts = [tag("path", class_="grid", d=lines)]
    parts += [
        tag("text", f"{value:g}", x=number(x(value)), y=number(height - BOTTOM + 15), text_anchor="middle")
        for value in x.ticks(4)
    ]
    for i, pair in enumerate(pairs):
        y = TOP + ROW * (i + 0.5)
        parts.append(tag("text", text(pair.name), x=number(LEFT - 8), y=number(y + 3.5), text_anchor="end"))
        if pair.paper is not None and pair.ours is not None:
            parts.append(tag("path", class_="thin", d=f"M{number(x(pair.paper))} {number(y)}H{number(x(pair.ours))}"))
        if pair.paper is not None:
            parts.append(tag("path", tip(pair.title), class_="paper", d=f"M{number(x(pair.paper))} {number(y - 7)}v14"))
        if pair.ours is None:
            continue
        if pair.bar:
            ends = f"M{number(x(pair.ours - pair.bar))} {number(y)}H{number(x(pair.ours + pair.bar))}"
            parts.append(tag("path", class_=f"bar {colour(pair.slot)}", d=ends))
        parts.append(marker(pair.slot, x(pair.ours), y, title=pair.title))
    return frame.svg(*parts, label=label)

"""Horizontal bar charts: one row for each name, with bars that may lie on top of each other and a note at their end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqakd.report.charts.svg import Frame, Scale, colour, number, tag, text, tip

WIDTH, ROW, BAR = 360.0, 20.0, 12.0
TOP, BOTTOM = 6.0, 36.0
LETTER = 6.3  # mean width of a letter, to leave room for names and notes


@dataclass(frozen=True)
class Bar:
    """A bar from zero.

    Attributes:
        value: its length, at least 0.
        slot: gives the colour.
        title: tooltip.
        pale: whether the bar is the background of another one.
    """

    value: float
    slot: int
    title: str
    pale: bool = False


@dataclass(frozen=True)
class BarRow:
    """The bars of one name, in the order of drawing, and the note behind the longest of them."""

    name: str
    bars: Sequence[Bar]
    note: str = ""


def draw_bars(rows: Sequence[BarRow], *, x_name: str, label: str) -> str:
    """Return a chart with one row of bars for each name.

    Args:
        rows: at least one, from top to bottom.
        x_name: name and unit of the values.
        label: description of the chart for screen readers.
    """
    left = 10 + LETTER * max(len(row.name) for row in rows)
    right = 12 + LETTER * max(len(row.note) for row in rows)
    height = TOP + ROW * len(rows) + BOTTOM
    longest = max(bar.value for row in rows for bar in row.bars)
    x = Scale(0, longest or 1, left, max(WIDTH - right, left + 60))
    frame = Frame(WIDTH, height, x, Scale(0, 1, height - BOTTOM, TOP))
    ticks = x.ticks(3)
    lines = "".join(f"M{number(x(value))} {TOP:g}V{number(height - BOTTOM)}" for value in ticks)
    parts = [tag("path", class_="grid", d=lines)]
    parts += [
        tag("text", f"{value:g}", x=number(x(value)), y=number(height - BOTTOM + 14), text_anchor="middle")
        for value in ticks
    ]
    parts.append(tag("text", text(x_name), x=number(WIDTH - 2), y=number(height - 5), text_anchor="end"))
    for i, row in enumerate(rows):
        middle = TOP + ROW * (i + 0.5)
        parts.append(tag("text", text(row.name), x=number(left - 6), y=number(middle + 3.5), text_anchor="end"))
        for bar in row.bars:
            place = {"x": number(left), "y": number(middle - BAR / 2), "height": number(BAR)}
            classes = f"block {'pale ' if bar.pale else ''}{colour(bar.slot)}"
            parts.append(tag("rect", tip(bar.title), class_=classes, width=number(x(bar.value) - left), **place))
        end = x(max(bar.value for bar in row.bars))
        parts.append(tag("text", text(row.note), x=number(end + 5), y=number(middle + 3.5)))
    return frame.svg(*parts, label=label)

"""SVG building blocks of the charts: elements, scales, axes and markers, all as text.

A chart is drawn in its own units, about 280 wide, and scales with the page. The classes s0 .. s7 carry the colours,
which are CSS variables of the page.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqakd.terminal import printable

COLOURS = 8
FLOAT = -1  # slot of float runs: the colour of text, drawn as an outline
# Marker shapes around the point 0 0, about 8 units wide.
SHAPES = (
    "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",  # circle
    "m-3.5-3.5h7v7h-7z",  # square
    "m0-4.6l4.4 7.8h-8.8z",  # triangle
    "m0-5l4.6 5l-4.6 5l-4.6-5z",  # diamond
    "m0 4.6l4.4-7.8h-8.8z",  # triangle upside down
    "m-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",  # plus
    "m-4.6 0l2.3-4h4.6l2.3 4l-2.3 4h-4.6z",  # hexagon
)


def tag(name: str, *content: str, **attributes: object) -> str:
    """Return an element; underscores in attribute names become hyphens, a trailing one is dropped.

    >>> tag("text", "a", class_="b", text_anchor="end")
    '<text class="b" text-anchor="end">a</text>'
    """
    attributes_text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(str(value))}"' for key, value in attributes.items()
    )
    return f"<{name}{attributes_text}>{''.join(content)}</{name}>"


def text(content: str) -> str:
    """Return text with the characters that HTML reserves, and those that no page or picture may contain, escaped."""
    return html.escape(printable(content))


def tip(content: str) -> str:
    """Return the title of a mark, which browsers show as a tooltip and screen readers read."""
    return tag("title", text(content)) if content else ""


def at(x: float, y: float) -> str:
    """Return a point, rounded to a tenth of a unit.

    >>> at(1.25, 30)
    '1.2 30'
    """
    return f"{number(x)} {number(y)}"


def number(value: float) -> str:
    """Return a number, rounded to a tenth of a unit.

    >>> number(3.04), number(-0.01)
    ('3', '0')
    """
    rounded = round(value, 1)
    return f"{rounded:g}" if rounded else "0"


@dataclass(frozen=True)
class Scale:
    """A map from values to positions in the drawing.

    Attributes:
        low, high: smallest and largest value.
        start, end: their positions.
        log: whether the scale is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def clipped(self, value: float) -> float:
        """Return the position of a value, or of the nearer end for a value outside of the scale."""
        return self(min(max(value, self.low), self.high))

    def ticks(self, count: int) -> list[float]:
        """Return about `count` round values."""
        found = log_ticks(self.low, self.high) if self.log else []
        return found if len(found) > 2 else ticks(self.low, self.high, count)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten, as close to `count` of them as possible.

    >>> ticks(93.4, 100.1, 4)
    [94.0, 96.0, 98.0, 100.0]
    """
    power = math.floor(math.log10((high - low) / count))
    steps = [factor * 10.0**exponent for exponent in (power, power + 1) for factor in (1, 2, 5)]

    def multiples(step: float) -> list[float]:
        return [round(i * step, 10) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]

    return min(map(multiples, steps), key=lambda values: abs(len(values) - count))


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten.

    >>> log_ticks(30, 600)
    [50.0, 100.0, 200.0, 500.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [value for value in values if low <= value <= high]


def padded(values: Iterable[float], *, share: float = 0.08, least: float = 0.5) -> tuple[float, float]:
    """Return the ends of a scale with some space around the values.

    Args:
        values: at least one.
        share: space on each side, as a share of the range of the values.
        least: smallest space on both sides together.
    """
    known = list(values)
    low, high = min(known), max(known)
    space = max(share * (high - low), least / 2)
    return low - space, high + space


@dataclass(frozen=True)
class Frame:
    """The size and the scales of a chart; y grows upwards, so its start lies below its end.

    Attributes:
        width, height: of the drawing.
        x, y: the scales.
    """

    width: float
    height: float
    x: Scale
    y: Scale

    def axes(
        self,
        x_labels: Sequence[tuple[float, str]],
        y_labels: Sequence[tuple[float, str]],
        unit: str = "",
        *,
        grid: bool = True,
    ) -> str:
        """Return the grid lines of y, the labels of both axes, and the unit of y above its axis."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        lines = "".join(f"M{at(left, self.y(value))}H{number(right)}" for value, _ in y_labels)
        labels = [
            tag("text", text(label), x=number(left - 5), y=number(self.y(value) + 3.5), text_anchor="end")
            for value, label in y_labels
        ]
        labels += [
            tag("text", text(label), x=number(self.x(value)), y=number(bottom + 15), text_anchor="middle")
            for value, label in x_labels
        ]
        if unit:
            labels.append(tag("text", text(unit), x=0, y=number(top - 7)))
        return (tag("path", class_="grid", d=lines) if grid and lines else "") + "".join(labels)

    def inside(self, *parts: str) -> str:
        """Return parts that are clipped to the area between the axes."""
        x, y, width, height = self.x.start, self.y.end, self.x.end - self.x.start, self.y.start - self.y.end
        box = [number(value) for value in (x, y, width, height)]
        place = dict(zip(("x", "y", "width", "height"), box, strict=True))
        return tag("svg", *parts, viewBox=" ".join(box), **place)

    def svg(self, *parts: str, label: str) -> str:
        """Return the whole drawing; `label` describes it for screen readers."""
        box = f"0 0 {number(self.width)} {number(self.height)}"
        return tag("svg", *parts, viewBox=box, role="img", aria_label=label)


def marker(slot: int, x: float, y: float, *, hollow: bool = False, title: str = "") -> str:
    """Return the marker of a method.

    Args:
        slot: number of the method, which gives shape and colour; `FLOAT` for float runs.
        x, y: position.
        hollow: whether only the outline is drawn.
        title: tooltip.
    """
    marks = "m h" if hollow or slot == FLOAT else "m"
    shape = SHAPES[max(slot, 0) % len(SHAPES)]
    return tag("path", tip(title), class_=f"{marks} {colour(slot)}", d=f"M{at(x, y)}{shape}")


def colour(slot: int) -> str:
    """Return the CSS class of a method's colour."""
    return "sf" if slot == FLOAT else f"s{slot % COLOURS}"


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """Return the path through some points.

    >>> polyline([(0, 0), (10, 5)])
    'M0 0L10 5'
    """
    return "M" + "L".join(at(x, y) for x, y in points)


def size_of(svg: str) -> tuple[float, float]:
    """Return width and height of a drawing.

    >>> size_of(tag("svg", viewBox="0 0 280 190.5"))
    (280.0, 190.5)
    """
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert found is not None, "every chart has a view box"
    return float(found[1]), float(found[2])

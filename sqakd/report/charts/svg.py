"""The few words of SVG that the charts are made of: scales, axes, marks. Text in, text out.

A chart is drawn in its own units, about 280 across, and grows with the page. Classes s0 .. s7 carry the colours, which
are the page's variables.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

COLOURS = 8
FLOAT = -1  # the slot of float runs: the colour of words, an outline
# Around the point 0 0, about 8 across.
SHAPES = (
    "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",  # circle
    "m-3.5-3.5h7v7h-7z",  # square
    "m0-4.6l4.4 7.8h-8.8z",  # triangle
    "m0-5l4.6 5l-4.6 5l-4.6-5z",  # diamond
    "m0 4.6l4.4-7.8h-8.8z",  # triangle on its tip
    "m-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",  # plus
    "m-4.6 0l2.3-4h4.6l2.3 4l-2.3 4h-4.6z",  # hexagon
)


def tag(name: str, *content: str, **attributes: object) -> str:
    """An element; underscores of attributes become hyphens, a trailing one is dropped.

    >>> tag("text", "a", class_="b", text_anchor="end")
    '<text class="b" text-anchor="end">a</text>'
    """
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for key, value in attributes.items()
    )
    return f"<{name}{words}>{''.join(content)}</{name}>"


def text(content: str) -> str:
    """Words that may hold signs of HTML."""
    return html.escape(content)


def tip(content: str) -> str:
    """What a mark says under the mouse, and to a screen reader."""
    return tag("title", text(content)) if content else ""


def at(x: float, y: float) -> str:
    """A point, to a tenth of a unit.

    >>> at(1.25, 30)
    '1.2 30'
    """
    return f"{number(x)} {number(y)}"


def number(value: float) -> str:
    """To a tenth of a unit.

    >>> number(3.04), number(-0.01)
    ('3', '0')
    """
    rounded = round(value, 1)
    return f"{rounded:g}" if rounded else "0"


@dataclass(frozen=True)
class Scale:
    """From a value to a place.

    Attributes:
        low, high: values.
        start, end: where they are.
        log: equal ratios have equal lengths.
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
        """As the value's nearest neighbour that is on the scale."""
        return self(min(max(value, self.low), self.high))

    def ticks(self, count: int) -> list[float]:
        """About so many round values."""
        found = log_ticks(self.low, self.high) if self.log else []
        return found if len(found) > 2 else ticks(self.low, self.high, count)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, as close to `count` of them as there can be.

    >>> ticks(93.4, 100.1, 4)
    [94.0, 96.0, 98.0, 100.0]
    """
    power = math.floor(math.log10((high - low) / count))
    steps = [factor * 10.0**exponent for exponent in (power, power + 1) for factor in (1, 2, 5)]

    def multiples(step: float) -> list[float]:
        return [round(i * step, 10) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]

    return min(map(multiples, steps), key=lambda values: abs(len(values) - count))


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten.

    >>> log_ticks(30, 600)
    [50.0, 100.0, 200.0, 500.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [value for value in values if low <= value <= high]


def padded(values: Iterable[float], *, share: float = 0.08, least: float = 0.5) -> tuple[float, float]:
    """Ends of a scale that leave some air around the values."""
    known = list(values)
    low, high = min(known), max(known)
    air = max(share * (high - low), least / 2)
    return low - air, high + air


@dataclass(frozen=True)
class Frame:
    """A chart's size and scales; y grows upwards, so its start is below its end.

    Attributes:
        width, height: of the drawing.
        x, y: scales.
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
        """Lines and words: grid along y, labels of both, and what y is above it."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        lines = "".join(f"M{at(left, self.y(value))}H{number(right)}" for value, _ in y_labels)
        words = [
            tag("text", text(word), x=number(left - 5), y=number(self.y(value) + 3.5), text_anchor="end")
            for value, word in y_labels
        ]
        words += [
            tag("text", text(word), x=number(self.x(value)), y=number(bottom + 15), text_anchor="middle")
            for value, word in x_labels
        ]
        if unit:
            words.append(tag("text", text(unit), x=0, y=number(top - 7)))
        return (tag("path", class_="grid", d=lines) if grid and lines else "") + "".join(words)

    def inside(self, *parts: str) -> str:
        """What is drawn between the axes alone; the rest of it is cut off."""
        x, y, width, height = self.x.start, self.y.end, self.x.end - self.x.start, self.y.start - self.y.end
        box = [number(value) for value in (x, y, width, height)]
        place = dict(zip(("x", "y", "width", "height"), box, strict=True))
        return tag("svg", *parts, viewBox=" ".join(box), **place)

    def svg(self, *parts: str, label: str) -> str:
        """The whole drawing; `label` says what it shows to those who do not see it."""
        box = f"0 0 {number(self.width)} {number(self.height)}"
        return tag("svg", *parts, viewBox=box, role="img", aria_label=label)


def marker(slot: int, x: float, y: float, *, hollow: bool = False, title: str = "") -> str:
    """A method's mark."""
    kind = "m h" if hollow or slot == FLOAT else "m"
    shape = SHAPES[max(slot, 0) % len(SHAPES)]
    return tag("path", tip(title), class_=f"{kind} {colour(slot)}", d=f"M{at(x, y)}{shape}")


def colour(slot: int) -> str:
    """The class of a method's colour."""
    return "sf" if slot == FLOAT else f"s{slot % COLOURS}"


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """The path through some places.

    >>> polyline([(0, 0), (10, 5)])
    'M0 0L10 5'
    """
    return "M" + "L".join(at(x, y) for x, y in points)

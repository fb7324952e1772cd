"""Pictures made of charts: as an HTML figure in a page, or as one SVG file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqakd.report.charts.sheet import draw_sheet
from sqakd.report.charts.svg import colour, marker, tag, text
from sqakd.report.methods import by_slot, long_name

REFERENCE = tag("path", class_="reference", d="M1 6H25")


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        title: above the chart.
        svg: the drawing.
        note: below the chart; empty for none.
    """

    title: str
    svg: str
    note: str = ""

    def html(self) -> str:
        """Return the chart with its title and its note."""
        note = [tag("p", text(self.note), class_="note")] if self.note else []
        return tag("div", tag("p", text(self.title), class_="title"), self.svg, *note, class_="facet")


@dataclass(frozen=True)
class Picture:
    """Charts that share a legend and a caption.

    Attributes:
        charts: at least one.
        caption: what the charts show, and how the numbers were made.
        legend: mark and meaning; a mark is SVG in a box of 26 by 12.
        wide: whether the charts are wider than usual.
    """

    charts: Sequence[Chart]
    caption: str
    legend: Sequence[tuple[str, str]] = ()
    wide: bool = False

    def html(self) -> str:
        """Return the picture as an HTML figure."""
        return figure(legend_html(self.legend), facets(self.charts, wide=self.wide), caption=self.caption)

    def svg(self, *, label: str, footer: str = "") -> str:
        """Return the picture as an SVG file that needs nothing else.

        Args:
            label: description of the picture for screen readers.
            footer: one line below the charts; the caption is left to the text around the picture.
        """
        return draw_sheet([(chart.title, chart.svg) for chart in self.charts], self.legend, label=label, footer=footer)


def figure(*content: str, caption: str) -> str:
    """Return HTML content above its caption, which is plain text."""
    return tag("figure", *content, tag("figcaption", text(caption)))


def facets(charts: Iterable[Chart], *, wide: bool = False) -> str:
    """Return charts in as many columns as fit."""
    return tag("div", *(chart.html() for chart in charts), class_="facets wide" if wide else "facets")


def nothing(reason: str) -> str:
    """Return a figure that has nothing to show and says why."""
    return tag("figure", tag("p", text(reason), class_="nothing"))


def method_marks(names: Iterable[str], slots: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the legend entries of training methods.

    Args:
        names: the methods.
        slots: their numbers, which give colour and marker.
    """
    return [(_line(slots[name]), long_name(name)) for name in by_slot(names, slots)]


def legend_html(entries: Sequence[tuple[str, str]]) -> str:
    """Return a legend as an HTML list; nothing without entries."""
    items = [
        tag("li", tag("svg", mark, viewBox="0 0 26 12", aria_hidden="true"), text(meaning)) for mark, meaning in entries
    ]
    return tag("ul", *items, class_="legend") if items else ""


def _line(slot: int) -> str:
    return tag("path", class_=f"line {colour(slot)}", d="M1 6H25") + marker(slot, 13, 6)

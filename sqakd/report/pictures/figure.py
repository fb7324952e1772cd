"""A figure: a legend, charts side by side, and a caption, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqakd.report.charts.svg import colour, marker, tag, text
from sqakd.report.methods import by_slot, long_name
from sqakd.report.records import Cell, Results

UNITS = {"top1": "top-1 %", "agreement": "agreement %"}


def figure(*content: str, caption: str) -> str:
    """Content above its caption, which is plain text."""
    return tag("figure", *content, tag("figcaption", text(caption)))


def facets(charts: Iterable[str], *, wide: bool = False) -> str:
    """Charts in as many columns as fit."""
    return tag("div", *charts, class_="facets wide" if wide else "facets")


def facet(title: str, *content: str) -> str:
    """A chart below its title."""
    return tag("div", tag("p", text(title), class_="title"), *content, class_="facet")


def nothing(words: str) -> str:
    """A figure that says why it is empty."""
    return tag("figure", tag("p", text(words), class_="nothing"))


def legend(names: Iterable[str], slots: Mapping[str, int], *more: tuple[str, str]) -> str:
    """Markers and names of methods.

    Args:
        names: methods.
        slots: their numbers.
        more: other marks: SVG in a box of 26 by 12, and what it means.
    """
    marks = [(_line(slots[name]), long_name(name)) for name in by_slot(names, slots)]
    items = [
        tag("li", tag("svg", mark, viewBox="0 0 26 12", aria_hidden="true"), text(name))
        for mark, name in [*marks, *more]
    ]
    return tag("ul", *items, class_="legend")


REFERENCE = tag("path", class_="reference", d="M1 6H25")


def _line(slot: int) -> str:
    return tag("path", class_=f"line {colour(slot)}", d="M1 6H25") + marker(slot, 13, 6)


def main_score(cells: Iterable[Cell], results: Results) -> str:
    """top1, or agreement where no run has labels to be judged by."""
    runs = (run for cell in cells for run in results.cells[cell])
    return "top1" if any("top1" in run.record.scores for run in runs) else "agreement"


def quantized(results: Results) -> dict[tuple[str, str], list[Cell]]:
    """Quantized cells by network: data set and model."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in results.cells:
        if cell.bits != "float":
            found.setdefault(cell.network, []).append(cell)
    return found


def named(network: tuple[str, str], networks: Sequence[object] | Mapping[tuple[str, str], object], *words: str) -> str:
    """A chart's title; the network is left out where there is one only."""
    return " ".join([*(network if len(networks) > 1 else ()), *words])


def bits_in_order(cells: Iterable[Cell]) -> list[str]:
    """Names of bit widths, the narrowest first."""
    return [name for *_, name in sorted({(cell.w_bits, cell.a_bits, cell.bits) for cell in cells})]


def float_line(results: Results, network: tuple[str, str], score: str) -> tuple[float, str] | None:
    """Mean of a network's float runs as the project defines them, last epoch, and the words for it."""
    for cell, runs in results.cells.items():
        values = [value for run in runs if (value := run.score(score, "last")) is not None]
        if cell.bits == "float" and cell.network == network and not cell.changes and values:
            mean = sum(values) / len(values)
            return mean, f"float run: {mean:.2f} ({len(values)})"
    return None

"""Several charts with their legend as one SVG file that needs nothing else, light and dark."""

from __future__ import annotations

from collections.abc import Sequence

from sqakd.report.charts.palette import page_css
from sqakd.report.charts.svg import number, size_of, tag, text

GAP, TITLE, LINE, LETTER = 20, 24, 22, 7.0
COLUMNS = 2
# The rules of the page's style sheet for marks and axes; its other rules are about the page.
RULES: tuple[str, ...] = (
    *(".s0", ".s4", ".sf", ".m ", ".m.h", ".line", ".thin", ".bar", ".block", ".grid", ".front", ".reference"),
    "svg text",
)


def draw_sheet(
    charts: Sequence[tuple[str, str]], legend: Sequence[tuple[str, str]], *, label: str, footer: str = ""
) -> str:
    """Return charts in two columns below their legend.

    Args:
        charts: title and SVG of each chart, all of the same width.
        legend: mark and meaning; a mark is SVG in a box of 26 by 12.
        label: description of the picture for screen readers.
        footer: one line of plain text below the charts.
    """
    sizes = [size_of(svg) for _, svg in charts]
    columns = min(COLUMNS, len(charts))
    chart_width = max(width for width, _ in sizes)
    width = columns * chart_width + (columns + 1) * GAP
    marks, y = _legend(legend, width)
    parts = []
    for start in range(0, len(charts), columns):
        row = list(zip(charts, sizes, strict=True))[start : start + columns]
        for column, ((title, svg), (own_width, own_height)) in enumerate(row):
            x = GAP + column * (chart_width + GAP)
            parts.append(tag("text", text(title), class_="title", x=number(x), y=number(y + 14)))
            place = f'<svg x="{number(x)}" y="{number(y + TITLE)}" width="{own_width:g}" height="{own_height:g}"'
            parts.append(svg.replace("<svg", place, 1))
        y += max(own_height for _, (_, own_height) in row) + TITLE + GAP
    if footer:
        y += LINE
        parts.append(tag("text", text(footer), x=GAP, y=number(y - GAP)))
    return tag(
        "svg",
        tag("style", _style()),
        tag("rect", width=number(width), height=number(y), fill="var(--page)"),
        marks,
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(y)}",
        width=number(width),
        height=number(y),
        role="img",
        aria_label=label,
    )


def _legend(entries: Sequence[tuple[str, str]], width: float) -> tuple[str, float]:
    """Return marks and meanings in as many lines as they need, and y below them."""
    x, y, items = float(GAP), float(GAP), []
    for mark, meaning in entries:
        needed = 48 + LETTER * len(meaning)
        if x + needed > width and x > GAP:
            x, y = float(GAP), y + LINE
        place = f"translate({number(x)} {number(y - 6)})"
        items.append(tag("g", mark, tag("text", text(meaning), x=31, y=10), transform=place))
        x += needed
    return "".join(items), y + LINE if entries else y


def _style() -> str:
    css = page_css()
    variables = css.partition("* {")[0]
    rules = [line for line in css.splitlines() if line.startswith(RULES)]
    font = 'svg { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }'
    return "\n".join([variables, *rules, font, "svg .title { font-weight: 600; fill: var(--ink); font-size: 13px; }"])

"""Accuracy against bits as one SVG file, light and dark, for a README."""

from __future__ import annotations

from importlib.resources import files

from sqakd.report.charts.svg import colour, marker, number, tag, text
from sqakd.report.methods import by_slot, long_name, slots
from sqakd.report.pictures.scores import bits_charts
from sqakd.report.records import Results

WIDTH, HEIGHT = 280, 200  # of a chart
GAP, TITLE, LINE, LETTER = 20, 24, 22, 7.0
COLUMNS = 2
# The page's rules for marks and axes; its other rules are about the page.
RULES = (".s0", ".s4", ".sf", ".m ", ".m.h", ".line", ".thin", ".bar", ".grid", ".reference", "svg text")


def headline(results: Results) -> str:
    """The charts of the report's panel `bits` below their legend.

    Raises:
        ValueError: if no quantized network has been trained.
    """
    charts, methods = bits_charts(results)
    if not charts:
        raise ValueError("no quantized network has been trained, so there is no picture; leave --picture away")
    width = COLUMNS * WIDTH + (COLUMNS + 1) * GAP
    legend, top = _legend(by_slot(methods, slots(results.cells)), slots(results.cells), width)
    parts = []
    for i, (title, svg) in enumerate(charts):
        row, column = divmod(i, COLUMNS)
        x, y = GAP + column * (WIDTH + GAP), top + row * (HEIGHT + TITLE + GAP)
        parts.append(tag("text", text(title), class_="title", x=x, y=y + 14))
        parts.append(svg.replace("<svg", f'<svg x="{x}" y="{y + TITLE}" width="{WIDTH}" height="{HEIGHT}"', 1))
    height = top + -(-len(charts) // COLUMNS) * (HEIGHT + TITLE + GAP) + LINE
    networks = dict.fromkeys(" ".join(cell.network) for cell in results.cells if cell.bits != "float")
    words = f"{', '.join(networks)}: last epoch, mean over seeds; bars: one standard deviation to each side"
    parts.append(tag("text", text(words), x=GAP, y=height - GAP))
    ground = tag("rect", width=width, height=height, fill="var(--page)")
    return tag(
        "svg",
        tag("style", _style()),
        ground,
        legend,
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label="accuracy against bits for each quantizer and way to train",
    )


def _legend(methods: list[str], known: dict[str, int], width: int) -> tuple[str, int]:
    """Marks and names in as many lines as they need, and where the charts begin."""
    x, y, items = float(GAP), GAP, []
    for name in [*methods, ""]:
        words = long_name(name) or "float run"
        needed = 48 + LETTER * len(words)
        if x + needed > width:
            x, y = float(GAP), y + LINE
        place = f"translate({number(x)} {y - 6})"
        mark = (
            tag("path", class_=f"line {colour(known[name])}", d="M1 6H25") + marker(known[name], 13, 6)
            if name
            else tag("path", class_="reference", d="M1 6H25")
        )
        items.append(tag("g", mark, tag("text", text(words), x=31, y=10), transform=place))
        x += needed
    return "".join(items), y + LINE


def _style() -> str:
    css = files("sqakd.report").joinpath("assets/page.css").read_text(encoding="utf-8")
    variables = css.partition("* {")[0]
    rules = [line for line in css.splitlines() if line.startswith(RULES)]
    font = 'svg { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }'
    return "\n".join([variables, *rules, font, "svg .title { font-weight: 600; fill: var(--ink); font-size: 13px; }"])

"""Accuracy, agreement with the teacher, and the gain over labels alone, each against bits for each way to train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sqakd.report.charts.points import Point, Series, draw_points
from sqakd.report.charts.svg import marker, padded
from sqakd.report.methods import by_slot, method, slots
from sqakd.report.pictures.figure import (
    REFERENCE,
    UNITS,
    bits_in_order,
    facet,
    facets,
    figure,
    float_line,
    legend,
    main_score,
    named,
    nothing,
    quantized,
)
from sqakd.report.records import Cell, Results
from sqakd.report.rows import row, scores
from sqakd.report.statistics import NO_VERDICT, STANDARD_ERRORS, mean_std
from sqakd.report.tables import show, show_difference

BARS = "Bars: one standard deviation over seeds to each side; a single seed has none."


def bits(results: Results) -> str:
    """Accuracy against bits for each quantizer and way to train."""
    groups = quantized(results)
    if not groups:
        return nothing("No quantized network has been trained.")
    score = main_score((cell for cells in groups.values() for cell in cells), results)
    what = "Top-1 on the validation images" if score == "top1" else "No labels: agreement with the teacher"
    return _scores(
        results,
        groups,
        score,
        f"{what}, last epoch, mean over seeds. {BARS} Dashed: the float run of the same network.",
    )


def bits_charts(results: Results) -> tuple[list[tuple[str, str]], set[str]]:
    """The charts of `bits`, each a title and SVG, and the ways to train in them."""
    groups = quantized(results)
    score = main_score((cell for cells in groups.values() for cell in cells), results)
    return _score_charts(results, groups, score), _methods(groups)


def agreement(results: Results) -> str:
    """How often student and teacher agree."""
    groups = {
        network: kept
        for network, cells in quantized(results).items()
        if (kept := [cell for cell in cells if scores(results.cells[cell], "agreement", "last")])
    }
    if not groups:
        return nothing("No run was compared with a teacher.")
    words = "Share of the validation images on which the student's class is its teacher's, last epoch, mean over seeds."
    return _scores(
        results,
        groups,
        "agreement",
        f"{words} {BARS} A student trained from labels alone is compared with the same network.",
    )


def labels(results: Results) -> str:
    """What each way to train gains over labels alone."""
    known = slots(results.cells)

    def point(place: int, cell: Cell) -> Point | None:
        difference = row(results, cell).to_labels("last")
        if difference is None:
            return None
        error = difference.standard_error
        counts = f"n {difference.n} and {difference.n_base}"
        title = f"{cell}: {show_difference(difference)}, {counts}, {_words(difference.verdict)}"
        bar = None if error is None else STANDARD_ERRORS * error
        return Point(place, difference.value, bar, title, difference.verdict not in ("better", "worse"))

    groups = {
        network: kept
        for network, cells in quantized(results).items()
        if (kept := [cell for cell in cells if point(0, cell) is not None])
    }
    if not groups:
        return nothing("Nothing to compare: no cell was run both with a teacher and from labels alone.")
    charts = _charts(results, groups, point, known, unit="points", what="gain over labels alone", zero=True)
    outline = marker(1, 13, 6, hollow=True)
    return figure(
        legend(
            _methods(groups), known, (outline, "outline: not told apart, or no verdict"), (REFERENCE, "labels alone")
        ),
        facets(facet(*chart) for chart in charts),
        caption="Top-1, last epoch, minus that of the same network, quantizer and bits trained from labels alone, in"
        " points; where labels were not run with the same additions (plus), without them, so that the difference is the"
        " whole stack's. Bars: two standard errors to each side. Filled: beyond two standard errors. An outline"
        " without a bar is a single seed, which has no standard error, or seeds that showed no spread.",
    )


def _words(verdict: str) -> str:
    return "no verdict" if verdict == NO_VERDICT else verdict


def _scores(results: Results, groups: Mapping[tuple[str, str], list[Cell]], score: str, caption: str) -> str:
    charts = _score_charts(results, groups, score)
    more = [(REFERENCE, "float run")] if score == "top1" else []
    marks = legend(_methods(groups), slots(results.cells), *more)
    return figure(marks, facets(facet(*chart) for chart in charts), caption=caption)


def _score_charts(results: Results, groups: Mapping[tuple[str, str], list[Cell]], score: str) -> list[tuple[str, str]]:
    def point(place: int, cell: Cell) -> Point | None:
        values = scores(results.cells[cell], score, "last")
        if not values:
            return None
        mean, std = mean_std(values)
        return Point(place, mean, std if len(values) > 1 else None, f"{cell}: {show(values)}")

    unit = UNITS[score]
    return _charts(results, groups, point, slots(results.cells), unit=unit, what=unit, score=score)


def _methods(groups: Mapping[tuple[str, str], Iterable[Cell]]) -> set[str]:
    return {method(cell) for cells in groups.values() for cell in cells}


def _charts(
    results: Results,
    groups: Mapping[tuple[str, str], list[Cell]],
    point: Callable[[int, Cell], Point | None],
    known: Mapping[str, int],
    *,
    unit: str,
    what: str,
    score: str = "",
    zero: bool = False,
) -> list[tuple[str, str]]:
    """Title and SVG of one chart for each network and quantizer; those of a network share their scale."""
    charts = []
    for network, cells in groups.items():
        places = bits_in_order(cells)
        line = (0.0, "labels alone") if zero else float_line(results, network, score) if score == "top1" else None
        drawn: dict[str, dict[str, list[Point]]] = {}
        for cell in sorted(cells, key=lambda cell: (cell.quantizer, cell.w_bits, cell.a_bits)):
            found = point(places.index(cell.bits), cell)
            if found:
                drawn.setdefault(cell.quantizer, {}).setdefault(method(cell), []).append(found)
        everything = [p for methods in drawn.values() for points in methods.values() for p in points]
        ends = padded([*(end for p in everything for end in p.ends), *([line[0]] if line else [])])
        for quantizer, methods in drawn.items():
            series = [Series(known[name], methods[name]) for name in by_slot(methods, known)]
            title = named(network, groups, quantizer)
            label = f"{what} against bits, {title}"
            svg = draw_points(places, series, ends, unit=unit, label=label, line=line, connected=not zero)
            charts.append((title, svg))
    return charts

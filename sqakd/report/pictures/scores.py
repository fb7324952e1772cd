"""Accuracy, agreement with the teacher, and gain over labels alone, each against bits for each training method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sqakd.report.cells import Cell
from sqakd.report.charts.points import Point, Series, draw_points
from sqakd.report.charts.svg import marker, padded
from sqakd.report.comparisons import comparison, scores
from sqakd.report.figure import REFERENCE, Chart, Picture, method_marks, nothing
from sqakd.report.methods import by_slot, method, slots
from sqakd.report.pictures.selection import (
    UNITS,
    bits_in_order,
    chart_title,
    float_line,
    main_score,
    quantized,
)
from sqakd.report.result_tables import show, show_difference
from sqakd.report.results import Results
from sqakd.report.statistics import NO_VERDICT, STANDARD_ERRORS, mean_std

BARS = "Error bars: one standard deviation over seeds on each side; a single seed has none."


def bits(results: Results) -> str:
    """Return the picture of accuracy against bits for each quantizer and training method."""
    groups = quantized(results)
    if not groups:
        return nothing("No quantized network has been trained.")
    score = main_score((cell for cells in groups.values() for cell in cells), results)
    name = "Top-1 on the validation images" if score == "top1" else "No labels: agreement with the teacher"
    caption = f"{name}, last epoch, mean over seeds. {BARS} Dashed: the float run of the same network."
    return _picture(results, groups, score, caption)


def bits_charts(results: Results) -> tuple[list[Chart], set[str]]:
    """Return the charts of `bits` and the training methods in them."""
    groups = quantized(results)
    score = main_score((cell for cells in groups.values() for cell in cells), results)
    return _score_charts(results, groups, score), _methods(groups)


def agreement(results: Results) -> str:
    """Return the picture of the agreement of student and teacher."""
    groups = {
        network: kept
        for network, cells in quantized(results).items()
        if (kept := [cell for cell in cells if scores(results.cells[cell], "agreement", "last")])
    }
    if not groups:
        return nothing("No run was compared with a teacher.")
    caption = (
        "Share of the validation images on which student and teacher predict the same class, last epoch, mean over"
        f" seeds. {BARS} A student trained from labels alone is compared with the same teacher."
    )
    return _picture(results, groups, "agreement", caption)


def labels(results: Results) -> str:
    """Return the picture of the gain of each training method over labels alone."""
    known = slots(results.cells)

    def point(place: int, cell: Cell) -> Point | None:
        difference = comparison(results, cell).to_labels("last")
        if difference is None:
            return None
        error = difference.standard_error
        counts = f"n {difference.n} and {difference.n_base}"
        title = f"{cell}: {show_difference(difference)}, {counts}, {_verdict(difference.verdict)}"
        bar = None if error is None else STANDARD_ERRORS * error
        return Point(place, difference.value, bar, title, not difference.is_distinguishable)

    groups = {
        network: kept
        for network, cells in quantized(results).items()
        if (kept := [cell for cell in cells if point(0, cell) is not None])
    }
    if not groups:
        return nothing("Nothing to compare: no cell was trained both with a teacher and from labels alone.")
    charts = _charts(results, groups, point, known, unit="points", name="gain over labels alone", zero=True)
    outline = (marker(1, 13, 6, hollow=True), "outline: not distinguishable, or no verdict")
    caption = (
        "Top-1, last epoch, minus that of the same network, quantizer and bits trained from labels alone, in points. If"
        " labels were not run with the same add-ons, the comparison is with labels without add-ons, and the difference"
        " includes their effect. Error bars: two standard errors on each side. Filled: beyond two standard errors. An"
        " outline without an error bar: a single seed, which has no standard error, or seeds that all came out equal."
    )
    legend = [*method_marks(_methods(groups), known), outline, (REFERENCE, "labels alone")]
    return Picture(charts, caption, legend).html()


def _verdict(verdict: str) -> str:
    return "no verdict" if verdict == NO_VERDICT else verdict


def _picture(results: Results, groups: Mapping[tuple[str, str], list[Cell]], score: str, caption: str) -> str:
    charts = _score_charts(results, groups, score)
    legend = method_marks(_methods(groups), slots(results.cells))
    return Picture(charts, caption, legend + ([(REFERENCE, "float run")] if score == "top1" else [])).html()


def _score_charts(results: Results, groups: Mapping[tuple[str, str], list[Cell]], score: str) -> list[Chart]:
    def point(place: int, cell: Cell) -> Point | None:
        values = scores(results.cells[cell], score, "last")
        if not values:
            return None
        mean, std = mean_std(values)
        return Point(place, mean, std if len(values) > 1 else None, f"{cell}: {show(values)}")

    unit = UNITS[score]
    return _charts(results, groups, point, slots(results.cells), unit=unit, name=unit, score=score)


def _methods(groups: Mapping[tuple[str, str], Iterable[Cell]]) -> set[str]:
    return {method(cell) for cells in groups.values() for cell in cells}


def _charts(
    results: Results,
    groups: Mapping[tuple[str, str], list[Cell]],
    point: Callable[[int, Cell], Point | None],
    known: Mapping[str, int],
    *,
    unit: str,
    name: str,
    score: str = "",
    zero: bool = False,
) -> list[Chart]:
    """Return one chart for each network and quantizer; the charts of a network have the same scale."""
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
            series = [Series(known[each], methods[each]) for each in by_slot(methods, known)]
            title = chart_title(network, groups, quantizer)
            label = f"{name} against bits, {title}"
            svg = draw_points(places, series, ends, unit=unit, label=label, line=line, connected=not zero)
            charts.append(Chart(title, svg))
    return charts

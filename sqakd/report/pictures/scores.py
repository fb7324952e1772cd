"""Accuracy, agreement with the teacher, and gain over labels alone, each against bits for each training method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import quantiles

from sqakd.report.cells import Cell
from sqakd.report.charts.points import Point, Series, draw_points
from sqakd.report.charts.svg import marker, padded
from sqakd.report.comparisons import comparison, scores
from sqakd.report.figure import REFERENCE, Chart, Picture, method_marks, nothing
from sqakd.report.methods import by_slot, method, slots
from sqakd.report.pictures.selection import (
    UNITS,
    Group,
    bits_in_order,
    by_score,
    float_line,
    listed,
    quantized,
    quantized_cells,
)
from sqakd.report.result_tables import show, show_difference
from sqakd.report.results import Results
from sqakd.report.statistics import NO_VERDICT, STANDARD_ERRORS, mean_std

# A value more than so many times the middle half's range below it is off the scale, if there are enough values.
FAR, ENOUGH = 2.5, 8
NAMES = {"top1": "Top-1 on the validation images", "agreement": "No labels: agreement with the teacher"}
BARS = "Error bars: one standard deviation over seeds on each side; a single seed has none."


@dataclass(frozen=True)
class Drawn:
    """Charts of groups of cells, and whether one of them has the dashed line of the float run."""

    groups: Mapping[Group, Sequence[Cell]]
    charts: Sequence[Chart]
    has_reference: bool

    @property
    def methods(self) -> set[str]:
        """The training methods in the charts."""
        return _methods(self.groups)


def bits(results: Results) -> str:
    """Return the picture of accuracy against bits for each quantizer and training method."""
    if not _uniform(quantized_cells(results)):
        return nothing("No quantized network has been trained with the same bits for all layers.")
    drawn = bits_charts(results)
    if not drawn.charts:
        return nothing("No quantized run has a score.")
    shown = {group.score for group in drawn.groups}
    description = listed(name for score, name in NAMES.items() if score in shown)
    return _picture(results, drawn, f"{description}, last epoch, mean over seeds. {BARS}")


def bits_charts(results: Results) -> Drawn:
    """Return the charts of `bits`."""
    return _score_charts(results, by_score(results, _uniform(quantized_cells(results))))


def agreement(results: Results) -> str:
    """Return the picture of the agreement of student and teacher."""
    groups = {
        Group(network, "agreement"): kept
        for network, cells in quantized(results).items()
        if (kept := [cell for cell in _uniform(cells) if scores(results.cells[cell], "agreement", "last")])
    }
    if not groups:
        return nothing("No run with the same bits for all layers was compared with a teacher.")
    caption = (
        "Share of the validation images on which student and teacher predict the same class, last epoch, mean over"
        f" seeds. {BARS} A student trained from labels alone is compared with the same teacher."
    )
    return _picture(results, _score_charts(results, groups), caption)


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
        Group(network, "top1"): kept
        for network, cells in quantized(results).items()
        if (kept := [cell for cell in _uniform(cells) if point(0, cell) is not None])
    }
    if not groups:
        return nothing(
            "Nothing to compare: no cell with the same bits for all layers was trained both with a teacher and from"
            " labels alone."
        )
    none = (0.0, "labels alone")
    charts = [
        chart
        for group, cells in groups.items()
        for chart in _charts(
            cells,
            point,
            known,
            unit="points",
            name="gain over labels alone",
            title=partial(group.title, groups),
            line=none,
            connected=False,
        )
    ]
    outline = (marker(1, 13, 6, hollow=True), "outline: not distinguishable, or no verdict")
    caption = (
        "Top-1, last epoch, minus that of the same network, quantizer and bits trained from labels alone, in points. If"
        " labels were not run with the same add-ons, the comparison is with labels without add-ons, and the difference"
        " includes their effect. Error bars: two standard errors on each side. Filled: beyond two standard errors. An"
        " outline without an error bar: a single seed, which has no standard error, or seeds that all came out equal."
    )
    legend = [*method_marks(_methods(groups), known), outline, (REFERENCE, "labels alone")]
    return Picture(charts, caption, legend).html()


def _uniform(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells whose bits no budget chose: the others have no place on an axis of bits."""
    return [cell for cell in cells if not cell.chosen_bits]


def _verdict(verdict: str) -> str:
    return "no verdict" if verdict == NO_VERDICT else verdict


def _picture(results: Results, drawn: Drawn, caption: str) -> str:
    legend = method_marks(drawn.methods, slots(results.cells))
    if drawn.has_reference:
        caption += " Dashed: the float run of the same network."
        legend.append((REFERENCE, "float run"))
    return Picture(drawn.charts, caption, legend).html()


def _score_charts(results: Results, groups: Mapping[Group, list[Cell]]) -> Drawn:
    """Return the charts of the last score of each group; top-1 is compared with the float run."""
    charts: list[Chart] = []
    has_reference = False
    for group, cells in groups.items():

        def point(place: int, cell: Cell, score: str = group.score) -> Point | None:
            values = scores(results.cells[cell], score, "last")
            if not values:
                return None
            mean, std = mean_std(values)
            return Point(place, mean, std if len(values) > 1 else None, f"{cell}: {show(values)}")

        line = float_line(results, group.network, group.score, cells) if group.score == "top1" else None
        has_reference |= line is not None
        unit, title = UNITS[group.score], partial(group.title, groups)
        charts += _charts(cells, point, slots(results.cells), unit=unit, name=unit, title=title, line=line)
    return Drawn(groups, charts, has_reference)


def _ends(points: Sequence[Point], lines: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the scale. Points far below all others, of trainings that failed, are left out of it.

    >>> _ends([Point(0, value, None, "") for value in (45.0, 86, 87, 88, 88, 89, 90, 90)], [92.0])
    (85.52, 92.48)
    """
    values = [point.value for point in points]
    first, _, third = quantiles(values, n=4) if len(values) >= ENOUGH else (min(values), 0.0, max(values))
    least = first - FAR * max(third - first, 1.0)
    return padded([*(end for point in points if point.value >= least for end in point.ends), *lines])


def _methods(groups: Mapping[Group, Iterable[Cell]]) -> set[str]:
    return {method(cell) for cells in groups.values() for cell in cells}


def _charts(
    cells: Iterable[Cell],
    point: Callable[[int, Cell], Point | None],
    known: Mapping[str, int],
    *,
    unit: str,
    name: str,
    title: Callable[..., str],
    line: tuple[float, str] | None,
    connected: bool = True,
) -> list[Chart]:
    """Return one chart for each quantizer of some cells; all have the same scale."""
    ordered = sorted(cells, key=lambda cell: (cell.quantizer, cell.w_bits, cell.a_bits))
    places = bits_in_order(ordered)
    drawn: dict[str, dict[str, list[Point]]] = {}
    for cell in ordered:
        if found := point(places.index(cell.bits), cell):
            drawn.setdefault(cell.quantizer, {}).setdefault(method(cell), []).append(found)
    everything = [p for methods in drawn.values() for points in methods.values() for p in points]
    if not everything:
        return []
    ends = _ends(everything, [line[0]] if line else [])
    charts = []
    for quantizer, methods in drawn.items():
        series = [Series(known[each], methods[each]) for each in by_slot(methods, known)]
        label = f"{name} against bits, {title(quantizer)}"
        svg = draw_points(places, series, ends, unit=unit, label=label, line=line, connected=connected)
        charts.append(Chart(title(quantizer), svg))
    return charts

"""Accuracy against its cost: packed size, bit-operations, and the latency of exported files that were measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqakd.report.cells import Cell
from sqakd.report.charts.scatter import Spot, draw_scatter, front
from sqakd.report.charts.svg import FLOAT, marker
from sqakd.report.comparisons import scores
from sqakd.report.figure import Chart, Picture, method_marks, nothing
from sqakd.report.methods import method, slots
from sqakd.report.pictures.selection import UNITS, by_score, chart_title
from sqakd.report.result_tables import show
from sqakd.report.results import FinishedRun, Results
from sqakd.report.statistics import mean_std
from sqakd.runs.export_record import FLOAT_FILE, ExportRecord
from sqakd.runs.record import Record

NO_LATENCY = (
    " Size only: none of these runs has labels and was exported and measured. python export.py run=FOLDER measures one,"
    " and the next report shows its latency here."
)
LATENCY = (
    " Latency: one exported file in a runtime on one machine, batch 1; error bars from the 10th to the 90th percentile."
)
FRONT = (
    "The line joins the cells that no cheaper cell reaches on average (Pareto front), and only its points have error"
    " bars; points within two standard errors are not distinguishable."
)


@dataclass(frozen=True)
class CostAxis:
    """The cost on the horizontal axis of a chart.

    Attributes:
        name: in the title of the chart.
        of: the cost of a run, from its record, in the unit of the axis.
        unit: unit of the axis.
        form: format of a cost.
        axis: label of the axis.
    """

    name: str
    of: Callable[[Record], float]
    unit: str
    form: str
    axis: str


SIZE = CostAxis("size", lambda record: record.packed_bytes / 1000, "kB", ".1f", "packed size, kB")
OPERATIONS = CostAxis(
    "bit-operations", lambda record: record.bit_operations / 1e6, "million", ".4g", "bit-operations, million"
)


def pareto_chart(title: str, spots: Sequence[Spot], x_name: str, y_name: str) -> Chart:
    """Return a scatter chart with its Pareto front, whose points the note below lists.

    Args:
        title: title of the chart.
        spots: at least one.
        x_name: name and unit of the cost.
        y_name: name and unit of the value.
    """
    svg = draw_scatter(spots, x_name=x_name, y_name=y_name, label=f"{y_name} against {x_name}, {title}")
    return Chart(title, svg, f"On the line: {'; '.join(spot.name for spot in front(spots))}.")


def pareto(results: Results) -> str:
    """Return the picture of accuracy against size and latency."""
    known, networks = slots(results.cells), _networks(results)
    charts = cost_charts(results, SIZE)
    timed = [
        pareto_chart(chart_title(network, networks, machine), spots, "latency, ms (median)", "top-1 of the file, %")
        for network in networks
        for machine, spots in _latencies(network, results, known).items()
    ]
    caption = (
        "Top-1, last epoch, mean and standard deviation over seeds, against the size of the network: quantized weights"
        f" at their bits, everything else at 32. {FRONT}"
    )
    return _picture(results, charts + timed, caption + (LATENCY if timed else NO_LATENCY), has_float=bool(timed))


def operations(results: Results) -> str:
    """Return the picture of accuracy against bit-operations."""
    caption = (
        "Top-1, last epoch, mean and standard deviation over seeds, against the bit-operations of one image:"
        f" multiply-adds times the bits of both factors. {FRONT}"
    )
    return _picture(results, cost_charts(results, OPERATIONS), caption)


def _picture(results: Results, charts: Sequence[Chart], caption: str, *, has_float: bool = False) -> str:
    if not charts:
        return nothing("Nothing to draw: no run has a score.")
    return Picture(charts, caption, cost_legend(results, has_float=has_float), wide=True).html()


def cost_legend(results: Results, *, has_float: bool = False) -> list[tuple[str, str]]:
    """Return mark and meaning of each training method, and of the float run.

    Args:
        results: all runs.
        has_float: whether the float run is drawn even if it is none of them.
    """
    names = {method(cell) for cell in results.cells if not cell.is_float}
    has_float = has_float or any(cell.is_float for cell in results.cells)
    return [*method_marks(names, slots(results.cells)), *[(marker(FLOAT, 13, 6), "float run")] * has_float]


def _networks(results: Results) -> dict[tuple[str, str], list[Cell]]:
    networks: dict[tuple[str, str], list[Cell]] = {}
    for cell in results.cells:
        networks.setdefault(cell.network, []).append(cell)
    return networks


def cost_charts(results: Results, cost: CostAxis) -> list[Chart]:
    """Return one chart for each network and score."""
    known, groups, charts = slots(results.cells), by_score(results, results.cells), []
    for group, cells in groups.items():
        if spots := _spots(cells, results, group.score, known, cost):
            charts.append(pareto_chart(group.title(groups, cost.name), spots, cost.axis, UNITS[group.score]))
    return charts


def _spots(cells: Iterable[Cell], results: Results, score: str, known: dict[str, int], cost: CostAxis) -> list[Spot]:
    return [spot for cell in cells if (spot := _spot(cell, results, score, _slot(cell, known), cost))]


def _slot(cell: Cell, known: dict[str, int]) -> int:
    return FLOAT if cell.is_float else known[method(cell)]


def _spot(cell: Cell, results: Results, score: str, slot: int, cost: CostAxis) -> Spot | None:
    runs = results.cells[cell]
    values, spent = scores(runs, score, "last"), mean_std([cost.of(run.record) for run in runs])[0]
    if not values or spent <= 0:  # no place on a logarithmic scale
        return None
    mean, std = mean_std(values)
    title = f"{cell}: {show(values)}, {spent:{cost.form}} {cost.unit}"
    name = f"{_short(cell)}, {spent:{cost.form}} {cost.unit}, {mean:.2f}"
    return Spot(slot, spent, mean, name, title, std if len(values) > 1 else None)


def _short(cell: Cell) -> str:
    return "float" if cell.is_float else f"{cell.quantizer} {cell.bits} {method(cell)}"


def _latencies(network: tuple[str, str], results: Results, known: dict[str, int]) -> dict[str, list[Spot]]:
    """Return spots by runtime, threads and processor, so that times of different machines are never in one chart."""
    runs = {
        (run.record.name, run.seed): (cell, run)
        for cell, some in results.cells.items()
        if cell.network == network
        for run in some
    }
    charts: dict[str, list[Spot]] = {}
    for export in results.exports:
        found = runs.get((export.name, export.seed))
        if found is None or export.benchmark is None:
            continue
        cell, run = found
        processor = export.benchmark.machine.get("processor", "unknown processor")
        for timed in export.benchmark.rows:
            top1 = _top1(export, timed.runtime, run, timed.profile)
            if timed.batch != 1 or timed.profile not in (FLOAT_FILE, export.profile) or top1 is None:
                continue
            if timed.p10_ms <= 0:  # no place on a logarithmic scale
                continue
            is_float = timed.profile == FLOAT_FILE
            slot = FLOAT if is_float else known[method(cell)]
            name = f"{'float' if is_float else _short(cell)}, {timed.p50_ms:.3g} ms, {top1:.2f}"
            title = f"{cell}, seed {run.seed}, {timed.profile} file: {top1:.2f} %, {timed.p50_ms:.3g} ms"
            spot = Spot(slot, timed.p50_ms, top1, name, title, None, (timed.p10_ms, timed.p90_ms))
            threads = f"{timed.threads} thread{'s' if timed.threads != 1 else ''}"
            charts.setdefault(f"{timed.runtime}, {threads}, {processor}", []).append(spot)
    return charts


def _top1(export: ExportRecord, runtime: str, run: FinishedRun, profile: str) -> float | None:
    """Return the top-1 of the measured file in percent: as verified in that runtime, or that of the float run."""
    if profile == FLOAT_FILE:
        known = run.record.float_run and run.record.float_run.scores.get("top1")
        return 100 * known.last if known else None
    value = next((verdict.top1 for verdict in export.verify if verdict.runtime.startswith(runtime)), None)
    return None if value is None else 100 * value

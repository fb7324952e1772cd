"""What accuracy costs: size with packed weights, and, where files were exported and measured, their latency."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqakd.report.charts.scatter import Spot, draw_scatter, front
from sqakd.report.charts.svg import FLOAT, marker, tag, text
from sqakd.report.methods import method, slots
from sqakd.report.pictures.figure import UNITS, facet, facets, figure, legend, main_score, named, nothing
from sqakd.report.records import Cell, Finished, Results
from sqakd.report.rows import scores
from sqakd.report.statistics import mean_std
from sqakd.report.tables import show
from sqakd.runs.export_record import FLOAT_FILE, ExportRecord
from sqakd.runs.record import Record

NO_LATENCY = (
    " Size only: none of these runs was exported and measured. python export.py run=FOLDER measures one, and the next"
    " report shows its latency here."
)


@dataclass(frozen=True)
class Cost:
    """A number of a record that accuracy is held to.

    Attributes:
        name: in a chart's title.
        of: the number of a run's record, in the chart's unit.
        unit: of the chart.
        form: of a number.
        axis: what the chart's horizontal axis is.
    """

    name: str
    of: Callable[[Record], float]
    unit: str
    form: str
    axis: str


SIZE = Cost("size", lambda record: record.packed_bytes / 1000, "kB", ".1f", "packed size, kB")
OPERATIONS = Cost(
    "bit-operations", lambda record: record.bit_operations / 1e6, "million", ".4g", "bit-operations, million"
)


def pareto(results: Results) -> str:
    """Accuracy against size and latency."""
    known, networks = slots(results.cells), _networks(results)
    charts = []
    for network, cells in networks.items():
        score = main_score(cells, results)
        spots = _spots(cells, results, score, known, SIZE)
        if spots:
            title = named(network, networks, SIZE.name)
            charts.append(_chart(title, spots, SIZE.axis, UNITS[score]))
        for where, timed in _latencies(network, results, known).items():
            title = named(network, networks, where)
            charts.append(_chart(title, timed, "latency of one image, ms (median)", "top-1 of the file, %"))
    if not charts:
        return nothing("Nothing to draw: no run has a score.")
    return figure(
        _legend(results),
        facets(charts, wide=True),
        caption="Top-1, last epoch, mean and standard deviation over seeds, against the bytes of the network: quantized"
        " weights at their bits, everything else at 32. The line joins what nothing smaller reaches on average, and"
        " only its points have their bars; points within two standard errors are not told apart."
        + (
            " Latency: an exported file of one run in a runtime on one machine, batch 1; bars from the 10th to the 90th"
            " percentile."
            if any(export.benchmark for export in results.exports)
            else NO_LATENCY
        ),
    )


def operations(results: Results) -> str:
    """Accuracy against bit-operations."""
    known, networks = slots(results.cells), _networks(results)
    charts = []
    for network, cells in networks.items():
        score = main_score(cells, results)
        if spots := _spots(cells, results, score, known, OPERATIONS):
            charts.append(_chart(named(network, networks, OPERATIONS.name), spots, OPERATIONS.axis, UNITS[score]))
    if not charts:
        return nothing("Nothing to draw: no run has a score.")
    return figure(
        _legend(results),
        facets(charts, wide=True),
        caption="Top-1, last epoch, mean and standard deviation over seeds, against the bit-operations of one image:"
        " multiply-adds times the bits of both their factors. The line joins what nothing cheaper reaches on average,"
        " and only its points have their bars; points within two standard errors are not told apart.",
    )


def _networks(results: Results) -> dict[tuple[str, str], list[Cell]]:
    networks: dict[tuple[str, str], list[Cell]] = {}
    for cell in results.cells:
        networks.setdefault(cell.network, []).append(cell)
    return networks


def _legend(results: Results) -> str:
    names = {method(cell) for cell in results.cells if cell.bits != "float"}
    return legend(names, slots(results.cells), (marker(FLOAT, 13, 6), "float run"))


def _spots(cells: Iterable[Cell], results: Results, score: str, known: dict[str, int], cost: Cost) -> list[Spot]:
    return [spot for cell in cells if (spot := _spot(cell, results, score, _slot(cell, known), cost))]


def _slot(cell: Cell, known: dict[str, int]) -> int:
    return FLOAT if cell.bits == "float" else known[method(cell)]


def _chart(title: str, spots: list[Spot], x_name: str, y_name: str) -> str:
    svg = draw_scatter(spots, x_name=x_name, y_name=y_name, label=f"{y_name} against {x_name}, {title}")
    on_line = f"On the line: {'; '.join(spot.name for spot in front(spots))}."
    return facet(title, svg, tag("p", text(on_line), class_="note"))


def _spot(cell: Cell, results: Results, score: str, slot: int, cost: Cost) -> Spot | None:
    runs = results.cells[cell]
    values = scores(runs, score, "last")
    if not values:
        return None
    mean, std = mean_std(values)
    spent = cost.of(runs[0].record)
    title = f"{cell}: {show(values)}, {spent:{cost.form}} {cost.unit}"
    name = f"{_short(cell)}, {spent:{cost.form}} {cost.unit}, {mean:.2f}"
    return Spot(slot, spent, mean, name, title, std if len(values) > 1 else None)


def _short(cell: Cell) -> str:
    return "float" if cell.bits == "float" else f"{cell.quantizer} {cell.bits} {method(cell)}"


def _latencies(network: tuple[str, str], results: Results, known: dict[str, int]) -> dict[str, list[Spot]]:
    """By runtime, threads and processor: numbers of different machines are never in one chart."""
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
        for row in export.benchmark.rows:
            runtime, profile = row.runtime, row.profile
            top1 = _top1(export, runtime, run, profile)
            if row.batch == 1 and profile in (FLOAT_FILE, export.profile) and top1 is not None:
                processor = export.benchmark.machine["processor"]
                threads = f"{row.threads} thread{'s' if row.threads != 1 else ''}"
                is_float = profile == FLOAT_FILE
                slot = FLOAT if is_float else known[method(cell)]
                name = f"{'float' if is_float else _short(cell)}, {row.p50_ms:.3g} ms, {top1:.2f}"
                title = f"{cell}, seed {run.seed}, {profile} file: {top1:.2f} %, {row.p50_ms:.3g} ms"
                spot = Spot(slot, row.p50_ms, top1, name, title, None, (row.p10_ms, row.p90_ms))
                charts.setdefault(f"{runtime}, {threads}, {processor}", []).append(spot)
    return charts


def _top1(export: ExportRecord, runtime: str, run: Finished, profile: str) -> float | None:
    """Of the file that was timed, in percent: as verified in that runtime, or the float run's."""
    if profile == FLOAT_FILE:
        known = run.record.float_run and run.record.float_run.scores.get("top1")
        return 100 * known.last if known else None
    value = next((verdict.top1 for verdict in export.verify if verdict.runtime.startswith(runtime)), None)
    return None if value is None else 100 * value

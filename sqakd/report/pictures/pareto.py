"""What accuracy costs: size with packed weights, and, where files were exported and measured, their latency."""

from __future__ import annotations

from sqakd.report.charts.scatter import Spot, draw_scatter, front
from sqakd.report.charts.svg import FLOAT, marker, tag, text
from sqakd.report.methods import method, slots
from sqakd.report.pictures.figure import UNITS, facet, facets, figure, legend, main_score, named, nothing
from sqakd.report.records import Cell, Finished, Record, Results
from sqakd.report.rows import scores
from sqakd.report.statistics import mean_std
from sqakd.report.tables import show

NO_LATENCY = (
    " Size only: none of these runs was exported and measured. python export.py run=FOLDER measures one, and the next"
    " report shows its latency here."
)


def pareto(results: Results) -> str:
    """Accuracy against size and latency."""
    known = slots(results.cells)
    networks: dict[tuple[str, str], list[Cell]] = {}
    for cell in results.cells:
        networks.setdefault(cell.network, []).append(cell)
    charts = []
    for network, cells in networks.items():
        score = main_score(cells, results)
        spots = [spot for cell in cells if (spot := _size(cell, results, score, _slot(cell, known)))]
        if spots:
            title = named(network, networks, "size")
            charts.append(_chart(title, spots, "packed size, kB", UNITS[score]))
        for where, timed in _latencies(network, results, known).items():
            title = named(network, networks, where)
            charts.append(_chart(title, timed, "latency of one image, ms (median)", "top-1 of the file, %"))
    if not charts:
        return nothing("Nothing to draw: no run has a score.")
    names = {method(cell) for cell in results.cells if cell.bits != "float"}
    return figure(
        legend(names, known, (marker(FLOAT, 13, 6), "float run")),
        facets(charts, wide=True),
        caption="Top-1, last epoch, mean and standard deviation over seeds, against the bytes of the network: quantized"
        " weights at their bits, everything else at 32. The line joins what nothing smaller reaches on average, and"
        " only its points have their bars; points within two standard errors are not told apart."
        + (
            " Latency: an exported file of one run in a runtime on one machine, batch 1; bars from the 10th to the 90th"
            " percentile."
            if any("benchmark" in record for record in results.exports)
            else NO_LATENCY
        ),
    )


def _slot(cell: Cell, known: dict[str, int]) -> int:
    return FLOAT if cell.bits == "float" else known[method(cell)]


def _chart(title: str, spots: list[Spot], x_name: str, y_name: str) -> str:
    svg = draw_scatter(spots, x_name=x_name, y_name=y_name, label=f"{y_name} against {x_name}, {title}")
    on_line = f"On the line: {'; '.join(spot.name for spot in front(spots))}."
    return facet(title, svg, tag("p", text(on_line), class_="note"))


def _size(cell: Cell, results: Results, score: str, slot: int) -> Spot | None:
    runs = results.cells[cell]
    values = scores(runs, score, "last")
    if not values:
        return None
    mean, std = mean_std(values)
    size = runs[0].record["packed_bytes"] / 1000
    title = f"{cell}: {show(values)}, {size:.1f} kB"
    name = f"{_short(cell)}, {size:.1f} kB, {mean:.2f}"
    return Spot(slot, size, mean, name, title, std if len(values) > 1 else None)


def _short(cell: Cell) -> str:
    return "float" if cell.bits == "float" else f"{cell.quantizer} {cell.bits} {method(cell)}"


def _latencies(network: tuple[str, str], results: Results, known: dict[str, int]) -> dict[str, list[Spot]]:
    """By runtime, threads and processor: numbers of different machines are never in one chart."""
    runs = {
        (run.record["name"], run.seed): (cell, run)
        for cell, some in results.cells.items()
        if cell.network == network
        for run in some
    }
    charts: dict[str, list[Spot]] = {}
    for export in results.exports:
        found = runs.get((export["name"], int(export["seed"])))
        if found is None or "benchmark" not in export:
            continue
        cell, run = found
        for row in export["benchmark"]["rows"]:
            runtime, _, profile = str(row["name"]).rpartition(" ")
            top1 = _top1(export, runtime, run, profile)
            if row["batch"] == 1 and profile in ("float", export["profile"]) and top1 is not None:
                processor = export["benchmark"]["machine"]["processor"]
                threads = f"{row['threads']} thread{'s' if row['threads'] != 1 else ''}"
                is_float = profile == "float"
                slot = FLOAT if is_float else known[method(cell)]
                name = f"{'float' if is_float else _short(cell)}, {row['p50_ms']:.3g} ms, {top1:.2f}"
                title = f"{cell}, seed {run.seed}, {profile} file: {top1:.2f} %, {row['p50_ms']:.3g} ms"
                spot = Spot(slot, row["p50_ms"], top1, name, title, None, (row["p10_ms"], row["p90_ms"]))
                charts.setdefault(f"{runtime}, {threads}, {processor}", []).append(spot)
    return charts


def _top1(export: Record, runtime: str, run: Finished, profile: str) -> float | None:
    """Of the file that was timed, in percent: as verified in that runtime, or the float run's."""
    if profile == "float":
        known = (run.record.get("float_run") or {}).get("scores", {}).get("top1")
        return None if known is None else 100 * float(known["last"])
    value = next((v.get("top1") for v in export["verify"] if str(v["runtime"]).startswith(runtime)), None)
    return None if value is None else 100 * float(value)

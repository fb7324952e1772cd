"""The picture of one run: learning curves, accuracy next to the float run, codes and clip ranges of each layer.

It is a PNG file, which every file manager shows. Its metrics, scales, clip ranges and colours are those of the report's
charts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sqakd.errors import SqakdError
from sqakd.files import replacing
from sqakd.interrupts import errors_in_one_line
from sqakd.report.charts.palette import light_colours
from sqakd.report.csv_files import Numbers, read_curve, read_numbers, read_quantizers
from sqakd.report.pictures.curves import AGREEMENT, DIVERGENCE, LOSS, TOP1, Metric, by_epoch, ends_of
from sqakd.report.pictures.ranges_and_codes import TENSORS, clip_range, used_codes
from sqakd.runs.folder import RunFolder
from sqakd.runs.record import Record, Score, read_record
from sqakd.terminal import printable

COLOURS = light_colours()
THIS_RUN, FLOAT_RUN, OTHER = COLOURS["s1"], COLOURS["s0"], COLOURS["muted"]


Panel = Callable[[Axes], None]


def draw_run(path: Path, record: Record) -> Path:
    """Write picture.png into the folder of a run and return its path. A chart without any number is left out.

    Args:
        path: folder of the run, with metrics.csv and, for a quantized run, quantizers.csv.
        record: record of the run.

    Raises:
        SqakdError: if a CSV file of the run or of its float run is damaged, or there is nothing to draw.
    """
    folder = RunFolder(path)
    rows = [panels for panels in (_result_panels(folder, record), _quantizer_panels(folder, record)) if panels]
    if not rows:
        raise SqakdError(
            f"nothing to draw: {path} has no scores, no {folder.metrics.name}, no {folder.quantizers.name}"
        )
    figure = Figure(figsize=(13, 4 * len(rows)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    figure.suptitle(f"{record.name}, seed {record.seed}", fontweight="bold", parse_math=False)
    for i, panels in enumerate(rows):
        part = figure.add_subfigure(figure.add_gridspec(len(rows), 1)[i])  # so that each row is filled by its charts
        for j, draw in enumerate(panels):
            draw(part.add_subplot(1, len(panels), j + 1))
    with replacing(folder.picture) as temporary:
        figure.savefig(temporary, format="png")
    return folder.picture


def _result_panels(folder: RunFolder, record: Record) -> list[Panel]:
    """Return the charts of the epochs and of the last scores."""
    rows, float_run = read_curve(folder, record.epochs), record.float_run
    float_rows = read_numbers(folder.sibling(float_run.name, float_run.seed).metrics) if float_run else []
    panels: list[Panel] = []
    if by_epoch(rows, TOP1) or by_epoch(rows, AGREEMENT):
        panels.append(partial(_accuracy, rows=rows, float_rows=float_rows, record=record))
    if _positive(rows, LOSS) or _positive(rows, DIVERGENCE):
        panels.append(partial(_loss, rows=rows))
    if bars := _bars(record):
        panels.append(partial(_scores, bars=bars, record=record))
    return panels


def _quantizer_panels(folder: RunFolder, record: Record) -> list[Panel]:
    """Return the charts of the codes and ranges of the layers."""
    quantizers = [row for row in read_quantizers(folder.quantizers, "layer", "is_weight") if used_codes(row)]
    tensors = {name: [row for row in quantizers if row["is_weight"] == is_weight] for is_weight, name in TENSORS}
    panels: list[Panel] = [partial(_layer_bits, layers=record.layer_bits)] if record.layer_bits else []
    panels += [
        partial(_codes, rows=rows, title=f"{name.removesuffix('s')} codes, share per layer")
        for name, rows in tensors.items()
        if rows
    ]
    inputs = tensors["inputs"]
    ranges = {row["layer"]: ends for row in inputs if (ends := clip_range(record.quantizer, row))}
    deltas = {row["layer"]: row["delta"] for row in inputs if "delta" in row}
    if ranges or deltas:
        panels.append(partial(_ranges, ranges=ranges, deltas=deltas))
    return panels


def _line(axes: Axes, curve: Mapping[int, float], label: str, color: str, style: str = "-") -> None:
    if curve:
        axes.plot(list(curve), list(curve.values()), color=color, label=label, ls=style, marker=".")


def _epochs(axes: Axes) -> None:
    """Finish a chart of epochs."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3, which="both")
    if axes.lines:
        axes.legend()


def _accuracy(axes: Axes, *, rows: Numbers, float_rows: Numbers, record: Record) -> None:
    float_top1, top1, agreement = by_epoch(float_rows, TOP1), by_epoch(rows, TOP1), by_epoch(rows, AGREEMENT)
    last = list(float_top1.values())[-1:]
    _line(axes, float_top1, "float run", FLOAT_RUN)
    if not float_top1 and (score := _float_top1(record)):  # its folder is elsewhere, but the record has its result
        last = [TOP1.factor * score.last]
        axes.axhline(last[0], color=FLOAT_RUN, label="float run, last epoch", ls=":")
    _line(axes, top1, "this run", THIS_RUN)
    _line(axes, agreement, "agreement with teacher", OTHER, "--")
    axes.set(title="validation", ylabel="%")
    # The scale is that of this run: the float run starts at chance, far below. Its last epoch is the reference.
    if own := [list(curve.values()) for curve in (top1, agreement) if curve]:
        axes.set_ylim(ends_of(own, last, TOP1))
    _epochs(axes)


def _float_top1(record: Record) -> Score | None:
    return record.float_run.scores.get("top1") if record.float_run else None


def _positive(rows: Numbers, metric: Metric) -> dict[int, float]:
    """Return the values of a metric that have a place on a logarithmic scale, by epoch."""
    return {epoch: value for epoch, value in by_epoch(rows, metric).items() if value > 0}


def _loss(axes: Axes, *, rows: Numbers) -> None:
    for metric, color, style in ((LOSS, THIS_RUN, "-"), (DIVERGENCE, OTHER, "--")):
        _line(axes, _positive(rows, metric), metric.name.replace("/", " "), color, style)
    axes.set_yscale("log")
    axes.set_title("loss")
    _epochs(axes)


def _bars(record: Record) -> list[tuple[str, float, str]]:
    """Return name, percent and colour of the last scores that the record has."""
    shown = (
        ("float run\ntop-1", _float_top1(record), FLOAT_RUN),
        ("this run\ntop-1", record.scores.get("top1"), THIS_RUN),
        ("agreement\nwith teacher", record.scores.get("agreement"), OTHER),
    )
    return [(label, TOP1.factor * score.last, color) for label, score, color in shown if score]


def _scores(axes: Axes, *, bars: list[tuple[str, float, str]], record: Record) -> None:
    """Draw the last scores as bars."""
    drawn = axes.bar([bar[0] for bar in bars], [bar[1] for bar in bars], color=[bar[2] for bar in bars])
    axes.bar_label(drawn, fmt="%.2f%%", padding=2)
    moment = "last epoch" if record.epochs else "without a training"
    axes.set(title=f"{moment}, {record.packed_bytes / 1000:.0f} kB packed", ylabel="%", ylim=(0, 112))


def _codes(axes: Axes, *, rows: Numbers, title: str) -> None:
    """Draw one bar per layer with a segment for each code."""
    layers, shares = [row["layer"] for row in rows], [used_codes(row) for row in rows]
    codes = sorted({code for layer in shares for code in layer})
    bottom = [0.0] * len(rows)
    for i, code in enumerate(codes):
        heights = [layer.get(code, 0.0) for layer in shares]
        color = colormaps["viridis"]((i + 0.5) / len(codes))
        axes.bar(layers, heights, bottom=bottom, color=color, width=0.9, label=str(code))
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    axes.set(title=title, xlabel="quantized layer", ylabel="share", ylim=(0, 1))
    if len(codes) <= 8:
        axes.legend(title="code", loc="upper left", bbox_to_anchor=(1, 1))


def _layer_bits(axes: Axes, *, layers: Mapping[str, Sequence[int]]) -> None:
    """Draw the bits of each layer: a bar for the weight and one for the input."""
    places = range(len(layers))
    for i, (name, color) in enumerate((("weights", THIS_RUN), ("inputs", FLOAT_RUN))):
        heights = [bits[i] for bits in layers.values()]
        axes.bar([place + 0.4 * i - 0.2 for place in places], heights, width=0.4, color=color, label=name)
    axes.set(title="bits of each layer", xlabel="quantized layer", ylabel="bits")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def _ranges(axes: Axes, *, ranges: Mapping[float, tuple[float, float]], deltas: Mapping[float, float]) -> None:
    """Draw the clip range of each layer as a bar, and the gradient scaling as a line; both by layer."""
    heights, lower = [high - low for low, high in ranges.values()], [low for low, _ in ranges.values()]
    axes.bar(list(ranges), heights, bottom=lower, color=THIS_RUN, alpha=0.6)
    if deltas:
        twin = axes.twinx()
        twin.plot(list(deltas), list(deltas.values()), color=FLOAT_RUN, marker=".", label="delta")
        twin.set_ylabel("gradient scaling delta", color=FLOAT_RUN)
    names = ["input clip range (bars)"] * bool(ranges) + ["gradient scaling (line)"] * bool(deltas)
    axes.set(title=", ".join(names), xlabel="quantized layer")


def main() -> None:
    """Run the command line: draw the pictures of the runs in the given folders."""
    parser = argparse.ArgumentParser(prog="python -m sqakd.report.run_picture", description="Draw picture.png again.")
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+", help="folder of a finished run")
    for folder in parser.parse_args().folders:
        with errors_in_one_line():
            print(printable(draw_run(folder, read_record(RunFolder(folder).record))))  # noqa: T201


if __name__ == "__main__":
    main()

"""The picture of one run: learning curves, accuracy next to the float run, codes and clip ranges of each layer.

It is a PNG file, which every file manager shows. Its metrics, scales, clip ranges and colours are those of the report's
charts.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sqakd.advice import errors_in_one_line
from sqakd.files import replacing
from sqakd.report.charts.palette import light_colours
from sqakd.report.csv_files import Numbers, read_numbers
from sqakd.report.pictures.curves import AGREEMENT, DIVERGENCE, LOSS, TOP1, by_epoch, ends_of
from sqakd.report.pictures.ranges_and_codes import clip_range, used_codes
from sqakd.runs.folder import RunFolder
from sqakd.runs.record import Record, read_record

COLOURS = light_colours()
THIS_RUN, FLOAT_RUN, OTHER = COLOURS["s1"], COLOURS["s0"], COLOURS["muted"]


def draw_run(path: Path, record: Record) -> Path:
    """Write picture.png into the folder of a run and return its path.

    Args:
        path: folder of the run, with metrics.csv and, for a quantized run, quantizers.csv.
        record: record of the run.

    Raises:
        SqakdError: if a CSV file of the run or of its float run is damaged.
    """
    folder = RunFolder(path)
    rows, quantizers = read_numbers(folder.metrics), read_numbers(folder.quantizers)
    float_run = record.float_run
    float_rows = read_numbers(folder.sibling(float_run.name, float_run.seed).metrics) if float_run else []
    figure = Figure(figsize=(13, 8 if quantizers else 4), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2 if quantizers else 1, 3)
    figure.suptitle(f"{record.name}, seed {record.seed}", fontweight="bold")
    _accuracy(figure.add_subplot(grid[0, 0]), rows, float_rows)
    _loss(figure.add_subplot(grid[0, 1]), rows)
    _scores(figure.add_subplot(grid[0, 2]), record)
    if quantizers:
        inputs = [row for row in quantizers if not row["is_weight"]]
        weights = [row for row in quantizers if row["is_weight"]]
        _codes(figure.add_subplot(grid[1, 0]), weights, "weight codes, share per layer")
        _codes(figure.add_subplot(grid[1, 1]), inputs, "input codes, share per layer")
        _ranges(figure.add_subplot(grid[1, 2]), inputs, record.quantizer)
    with replacing(folder.picture) as temporary:
        figure.savefig(temporary, format="png")
    return folder.picture


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


def _accuracy(axes: Axes, rows: Numbers, float_rows: Numbers) -> None:
    float_top1, top1, agreement = by_epoch(float_rows, TOP1), by_epoch(rows, TOP1), by_epoch(rows, AGREEMENT)
    _line(axes, float_top1, "float run", FLOAT_RUN)
    _line(axes, top1, "this run", THIS_RUN)
    _line(axes, agreement, "agreement with teacher", OTHER, "--")
    axes.set(title="validation", ylabel="%")
    # The scale is that of this run: the float run starts at chance, far below. Its last epoch is the reference.
    if own := [list(curve.values()) for curve in (top1, agreement) if curve]:
        axes.set_ylim(ends_of(own, list(float_top1.values())[-1:], TOP1))
    _epochs(axes)


def _loss(axes: Axes, rows: Numbers) -> None:
    for metric, color, style in ((LOSS, THIS_RUN, "-"), (DIVERGENCE, OTHER, "--")):
        positive = {epoch: value for epoch, value in by_epoch(rows, metric).items() if value > 0}
        _line(axes, positive, metric.name.replace("/", " "), color, style)
    if axes.lines:
        axes.set_yscale("log")
    axes.set_title("loss")
    _epochs(axes)


def _scores(axes: Axes, record: Record) -> None:
    """Draw the last scores as bars."""
    float_scores = record.float_run.scores if record.float_run else {}
    shown = (
        ("float run\ntop-1", float_scores.get("top1"), FLOAT_RUN),
        ("this run\ntop-1", record.scores.get("top1"), THIS_RUN),
        ("agreement\nwith teacher", record.scores.get("agreement"), OTHER),
    )
    bars = [(label, TOP1.factor * score.last, color) for label, score, color in shown if score]
    drawn = axes.bar([bar[0] for bar in bars], [bar[1] for bar in bars], color=[bar[2] for bar in bars])
    axes.bar_label(drawn, fmt="%.2f%%", padding=2)
    axes.set(title=f"last epoch, {record.packed_bytes / 1000:.0f} kB packed", ylabel="%", ylim=(0, 112))


def _codes(axes: Axes, rows: Numbers, title: str) -> None:
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


def _ranges(axes: Axes, rows: Numbers, quantizer: str) -> None:
    layers = [row["layer"] for row in rows]
    ranges = {row["layer"]: ends for row in rows if (ends := clip_range(quantizer, row))}
    heights, lower = [high - low for low, high in ranges.values()], [low for low, _ in ranges.values()]
    axes.bar(list(ranges), heights, bottom=lower, color=THIS_RUN, alpha=0.6)
    if all("delta" in row for row in rows):
        twin = axes.twinx()
        twin.plot(layers, [row["delta"] for row in rows], color=FLOAT_RUN, marker=".", label="delta")
        twin.set_ylabel("gradient scaling delta", color=FLOAT_RUN)
    axes.set(title="input clip range (bars)" if ranges else "input clip range: none", xlabel="quantized layer")


def main() -> None:
    """Run the command line: draw the pictures of the runs in the given folders."""
    parser = argparse.ArgumentParser(prog="python -m sqakd.report.run_picture", description="Draw picture.png again.")
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+", help="folder of a finished run")
    for folder in parser.parse_args().folders:
        with errors_in_one_line():
            print(draw_run(folder, read_record(RunFolder(folder).record)))  # noqa: T201


if __name__ == "__main__":
    main()

"""The picture of one run: learning curves, accuracy next to the teacher, codes and clip ranges of each layer."""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sqakd.errors import SqakdError
from sqakd.files import replacing
from sqakd.report.csv_files import Numbers, read_numbers
from sqakd.runs.folder import RunFolder
from sqakd.runs.record import Record, read_record

STUDENT, TEACHER, MUTED = "#0072b2", "#d55e00", "#999999"  # safe for readers with red-green colour blindness


def draw_run(folder: Path, record: Record) -> Path:
    """Write picture.png into the folder of a run and return its path.

    Args:
        folder: folder of the run, with metrics.csv and, for a quantized run, quantizers.csv.
        record: record of the run.
    """
    run = RunFolder(folder)
    rows = read_numbers(run.metrics)
    quantizers = read_numbers(run.quantizers)
    figure = Figure(figsize=(13, 8 if quantizers else 4), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2 if quantizers else 1, 3)
    figure.suptitle(f"{record.name}, seed {record.seed}", fontweight="bold")
    float_record = record.float_run
    float_rows: Numbers = []
    if float_record:
        float_rows = read_numbers(run.sibling(float_record.name, float_record.seed).metrics)
    _accuracy(figure.add_subplot(grid[0, 0]), rows, float_rows)
    _loss(figure.add_subplot(grid[0, 1]), rows)
    _bars(figure.add_subplot(grid[0, 2]), record)
    if quantizers:
        inputs = [row for row in quantizers if not row["is_weight"]]
        weights = [row for row in quantizers if row["is_weight"]]
        _codes(figure.add_subplot(grid[1, 0]), weights, "weight codes, share per layer")
        _codes(figure.add_subplot(grid[1, 1]), inputs, "input codes, share per layer")
        _ranges(figure.add_subplot(grid[1, 2]), inputs)
    with replacing(run.picture) as temporary:
        figure.savefig(temporary, format="png")
    return run.picture


def _accuracy(axes: Axes, rows: Numbers, float_rows: Numbers) -> None:
    for data, label, color in ((float_rows, "float teacher", TEACHER), (rows, "this run", STUDENT)):
        if data and "val/top1" in data[0]:
            axes.plot(
                [r["epoch"] + 1 for r in data],
                [100 * r["val/top1"] for r in data],
                color=color,
                label=label,
                marker=".",
            )
    if rows and "val/agreement" in rows[0]:
        values = [100 * r["val/agreement"] for r in rows]
        axes.plot([r["epoch"] + 1 for r in rows], values, color=MUTED, ls="--", label="agreement with teacher")
    axes.set(title="validation", xlabel="epoch", ylabel="%")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    own = [100 * r[key] for r in rows for key in ("val/top1", "val/agreement") if key in r]
    if own:  # the scale is that of this run; the float run starts at chance, far below
        axes.set_ylim(max(0.0, min(own) - 2), min(100.0, max(own) + 5) + 0.2)
    if axes.lines:
        axes.legend(loc="lower right")


def _loss(axes: Axes, rows: Numbers) -> None:
    for key, color, style in (("train/loss", STUDENT, "-"), ("val/kl", MUTED, "--")):
        points = [(r["epoch"] + 1, r[key]) for r in rows if r.get(key, 0) > 0]
        if points:
            axes.semilogy(*zip(*points, strict=True), color=color, ls=style, marker=".", label=key.replace("/", " "))
    axes.set(title="loss", xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3, which="both")
    if axes.lines:
        axes.legend()


def _bars(axes: Axes, record: Record) -> None:
    bars = []
    if record.float_run and "top1" in record.float_run.scores:
        bars.append(("float\nteacher", record.float_run.scores["top1"].last, TEACHER))
    for key, label in (("top1", "this run\ntop-1"), ("agreement", "agreement\nwith teacher")):
        if key in record.scores:
            bars.append((label, record.scores[key].last, STUDENT if key == "top1" else MUTED))
    heights = [100 * height for _, height, _ in bars]
    drawn = axes.bar([label for label, _, _ in bars], heights, color=[color for _, _, color in bars])
    axes.bar_label(drawn, fmt="%.2f%%", padding=2)
    axes.set(title=f"last epoch, {record.packed_bytes / 1000:.0f} kB packed", ylabel="%", ylim=(0, 112))


def _codes(axes: Axes, rows: Numbers, title: str) -> None:
    """Draw one bar per layer with a segment for each code."""
    codes = sorted({int(key.removeprefix("code_")) for row in rows for key in row if key.startswith("code_")})
    bottom = [0.0] * len(rows)
    colors = [(i + 0.5) / len(codes) for i in range(len(codes))]
    for code, position in zip(codes, colors, strict=True):
        shares = [row.get(f"code_{code}", 0.0) for row in rows]
        axes.bar(
            [row["layer"] for row in rows],
            shares,
            bottom=bottom,
            color=colormaps["viridis"](position),
            width=0.9,
            label=str(code),
        )
        bottom = [b + s for b, s in zip(bottom, shares, strict=True)]
    axes.set(title=title, xlabel="quantized layer", ylabel="share", ylim=(0, 1))
    if len(codes) <= 8:
        axes.legend(title="code", loc="upper left", bbox_to_anchor=(1, 1))


def _ranges(axes: Axes, rows: Numbers) -> None:
    layers = [row["layer"] for row in rows]
    if all("lower" in row and "upper" in row for row in rows):
        lower, upper = [r["lower"] for r in rows], [r["upper"] for r in rows]
        axes.bar(layers, [u - v for v, u in zip(lower, upper, strict=True)], bottom=lower, color=STUDENT, alpha=0.6)
    if all("delta" in row for row in rows):
        twin = axes.twinx()
        twin.plot(layers, [row["delta"] for row in rows], color=TEACHER, marker=".", label="delta")
        twin.set_ylabel("gradient scaling delta", color=TEACHER)
    axes.set(title="input clip range (bars)", xlabel="quantized layer")


def main() -> None:
    """Run the command line: draw the pictures of the runs in the given folders."""
    parser = argparse.ArgumentParser(prog="python -m sqakd.report.run_picture", description="Draw picture.png again.")
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+", help="folder of a finished run")
    for folder in parser.parse_args().folders:
        run = RunFolder(folder)
        if not run.finished:
            raise SystemExit(f"error: {folder} has no finished run: expected a record.json")
        try:
            print(draw_run(folder, read_record(run.record)))  # noqa: T201
        except SqakdError as error:
            raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()

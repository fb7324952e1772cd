"""The export in words and pictures: report.md, report.html, layers.png, latency.png, pareto.png.

    python -m sqakd.export.report FOLDER        of an export: writes them again from its record.json
    python -m sqakd.export.report RUNS          of runs: prints a table of all exports

Pictures compare one export with all others under the same folder of runs.
"""

from __future__ import annotations

import argparse
import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from sqakd.runs.export_record import Benchmark, ExportRecord, Timed, read_export, read_exports

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#999999"
BIT_OPERATIONS = (
    "sum over layers of multiply-adds x weight bits x input bits, for one image; float layers count 32 x 32"
)
NOTE_SPEED = (
    "No CPU runtime here convolves fewer than 8 bits: fewer bits buy size and exactness, and speed only as 8 bits do."
)
NOTES = {
    "exact": "Every layer that was trained on integers runs on them; what was real in training (first and last layer,"
    " residual sums) stays real.",
    "int8": "Residual sums and the outer layers, which training never rounded, are 8-bit too, so this file is not quite"
    " the trained network.",
    "trt": "The form that TensorRT takes: int8 with zero point 0, a Clip on real values, int8 skip connections. Its"
    " structure is checked and it runs in ONNX Runtime; TensorRT itself was not run.",
}


@dataclass(frozen=True)
class Table:
    """Header and rows of text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


Part = str | Table | Path


def write_report(folder: Path, record: ExportRecord, others: Iterable[ExportRecord]) -> None:
    """Write words and pictures beside the files of an export.

    Args:
        folder: of the export.
        record: its record.
        others: records of all exports, for the picture that compares those of the same data set.
    """
    same_data = [other for other in others if other.dataset == record.dataset]
    known = {(r.name, r.seed, r.profile): r for r in [*same_data, record]}
    draw_layers(folder / "layers.png", record)
    if record.benchmark:
        draw_latency(folder / "latency.png", record.benchmark.rows)
    draw_pareto(folder / "pareto.png", list(known.values()), record)
    parts = list(_parts(folder, record))
    (folder / "report.md").write_text(as_markdown(parts), encoding="utf-8")
    (folder / "report.html").write_text(as_html(parts, title=f"{record.name}, {record.profile}"), encoding="utf-8")


def _parts(folder: Path, record: ExportRecord) -> Iterable[Part]:
    yield f"# {record.name}, seed {record.seed}: {record.profile}"
    yield NOTES[record.profile]
    yield "## Does it say what the trained network says?"
    yield Table(
        ["runtime", "images", "same class", "top-1", "trained top-1", "largest difference", "median", "logits' spread"],
        [
            [
                v.runtime,
                str(v.images),
                _percent(v.agreement),
                _percent(v.top1),
                _percent(v.trained_top1),
                f"{v.largest_difference:.2g}",
                f"{v.median_difference:.2g}",
                f"{v.spread:.2g}",
            ]
            for v in record.verify
        ],
    )
    yield "## How large is it?"
    sizes = record.sizes
    names = {
        "parameters_at_their_bits": "parameters at their bits, nothing else",
        "file": "model.onnx",
        "file_gzip": "model.onnx, gzip",
        "unpacked": "the same with 8 bits for each weight",
        "float": "model.float.onnx",
        "float_gzip": "model.float.onnx, gzip",
    }
    yield Table(
        ["", "kB", "smaller than float"],
        [
            [name, f"{size / 1000:.1f}", f"{sizes.float / size:.1f}x"]
            for key, name in names.items()
            if (size := getattr(sizes, key))
        ],
    )
    yield f"{(record.bit_operations or 0) / 1e6:,.1f} million bit-operations ({BIT_OPERATIONS})."
    floats = ", ".join(f"{part['name']} ({part['parameters']:,})" for part in record.stays_float) or "nothing"
    yield f"Stays float (parameters): {floats}; and of each integer layer a scale and a bias per channel."
    yield "## Layer by layer"
    yield folder / "layers.png"
    yield Table(
        ["layer", "weights", "bits w/a", "output", "head-room", "wrong sums", "reachable", "codes that differ"],
        [_layer_row(layer) for layer in record.layers],
    )
    yield (
        "Wrong sums: of all sums that any input can produce, how many get another code than in training, counted"
        " exhaustively. Codes that differ: measured on training images, each layer given the same codes."
    )
    if record.benchmark:
        yield from _speed(folder, record.benchmark)
    yield "## Against other exports"
    yield folder / "pareto.png"
    yield "## What made it"
    yield "; ".join(f"{name} {version}" for name, version in record.versions.items()) + (
        f"; opset {record.opset}; weights of the float file: {record.float_source}."
    )


def _layer_row(layer: Mapping[str, Any]) -> list[str]:
    differ = layer.get("codes_that_differ")
    regrid = f", regridded ({100 * layer['regrid_error']:.2f}% off)" if layer["regrid_error"] else ""
    return [
        layer["name"],
        "x".join(str(n) for n in layer["shape"]),
        f"{layer['w_bits']}/{layer['a_bits']}",
        layer["output"] + regrid,
        str(layer["head_room"]),
        f"{layer['wrong_sums']:,}" if "wrong_sums" in layer else "-",
        f"{layer['reachable_sums']:,}" if "reachable_sums" in layer else "-",
        "-" if differ is None else f"{differ:.1e}" if differ else "0",
    ]


def _speed(folder: Path, measured: Benchmark) -> Iterable[Part]:
    machine = measured.machine
    yield "## How fast is it here?"
    yield (
        f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['isa']) or 'unknown instructions'};"
        f" {machine['system']}, Python {machine['python']}, load {machine['load']} before. {NOTE_SPEED}"
    )
    yield folder / "latency.png"
    yield speed_table(measured.rows)
    yield "Ratio: how much faster than ONNX Runtime on the float file. Load time includes importing the runtime."
    yield "What each runtime executes, as it says itself:"
    yield Table(
        ["runtime", "operators"],
        [[name, ", ".join(_counts(operators))] for name, operators in measured.executed.items()],
    )
    if measured.missing:
        yield f"Could not be measured here: {', '.join(measured.missing)}."


def speed_table(rows: Iterable[Timed]) -> Table:
    """One row for each runtime, batch and number of threads."""
    return Table(
        ["runtime", "version", "batch", "threads", "p50 ms", "p90 ms", "ratio", "load ms", "peak MB"],
        [
            [
                row.name,
                row.version,
                str(row.batch),
                str(row.threads),
                f"{row.p50_ms:.3f}",
                f"{row.p90_ms:.3f}",
                f"{row.ratio:.2f}x" if row.ratio else "-",
                "-" if row.load_ms is None else f"{row.load_ms:.0f}",
                "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}",
            ]
            for row in rows
        ],
    )


def _counts(operators: Mapping[str, int]) -> list[str]:
    shown = {name: n for name, n in operators.items() if not name.startswith(("Const", "Input", "Output"))}
    return [f"{n} {name}" for name, n in sorted(shown.items(), key=lambda item: (-item[1], item[0]))]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}%"


def as_markdown(parts: Iterable[Part]) -> str:
    """Text with tables and links to pictures."""
    written = []
    for part in parts:
        if isinstance(part, Table):
            lines = [part.header, ["---"] * len(part.header), *part.rows]
            written.append("".join(f"| {' | '.join(line)} |\n" for line in lines))
        else:
            written.append(f"![{part.stem}]({part.name})\n" if isinstance(part, Path) else f"{part}\n")
    return "\n".join(written)


def as_html(parts: Iterable[Part], *, title: str) -> str:
    """One page that needs no other file."""
    written = []
    for part in parts:
        if isinstance(part, Table):
            head = "".join(f"<th>{html.escape(cell)}</th>" for cell in part.header)
            rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in part.rows]
            body = "".join(f"<tr>{row}</tr>\n" for row in rows)
            written.append(f"<table><tr>{head}</tr>\n{body}</table>")
        elif isinstance(part, Path):
            picture = base64.b64encode(part.read_bytes()).decode()
            written.append(f'<img alt="{html.escape(part.stem)}" src="data:image/png;base64,{picture}">')
        else:
            level = len(part) - len(part.lstrip("#"))
            tag = f"h{level}" if level else "p"
            written.append(f"<{tag}>{html.escape(part.lstrip('# '))}</{tag}>")
    style = (
        "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}img{max-width:100%}"
        "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{style}</style>\n" + "\n".join(written) + "\n</html>\n"
    )


def overview(records: Iterable[ExportRecord]) -> Table:
    """One row for each export and runtime."""
    header = ["run", "seed", "profile", "runtime", "images", "same class", "top-1", "trained top-1"]
    rows = [
        [
            record.name,
            str(record.seed),
            record.profile,
            verdict.runtime,
            str(verdict.images),
            _percent(verdict.agreement),
            _percent(verdict.top1),
            _percent(verdict.trained_top1),
            f"{verdict.largest_difference:.1e}",
            f"{sum(layer.get('wrong_sums', 0) for layer in record.layers):,}"
            f" of {sum(layer.get('reachable_sums', 0) for layer in record.layers):,}",
            f"{record.sizes.file / 1000:.1f}",
            f"{record.sizes.float / record.sizes.file:.1f}x",
        ]
        for record in records
        for verdict in record.verify
    ]
    return Table([*header, "largest difference of logits", "wrong sums", "kB", "smaller than float"], rows)


# pictures


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure


def draw_layers(file: Path, record: ExportRecord) -> None:
    """For each layer: its size in float and at its bits, and its wrong sums."""
    layers = record.layers
    figure = _figure(12, max(3.0, 0.28 * len(layers) + 1.2))
    size, wrong = figure.subplots(1, 2, sharey=True)
    names = [layer["name"] for layer in layers]
    weights = [_numel(layer["shape"]) for layer in layers]
    size.barh(names, [4 * n / 1000 for n in weights], color=GREY, label="float")
    packed = [n * layer["w_bits"] / 8000 for n, layer in zip(weights, layers, strict=True)]
    size.barh(names, packed, color=BLUE, label="at its bits")
    size.set(title="weights", xlabel="kB", xscale="log")
    size.invert_yaxis()
    size.legend()
    shares = [1e6 * layer["wrong_sums"] / layer["reachable_sums"] if "wrong_sums" in layer else 0 for layer in layers]
    bars = wrong.barh(names, shares, color=ORANGE)
    labels = [f"{layer['wrong_sums']:,}" if "wrong_sums" in layer else "real output" for layer in layers]
    wrong.bar_label(bars, labels, padding=3, fontsize=8)
    wrong.set(title="sums that get another code than in training", xlabel="per million reachable sums")
    wrong.set_xlim(0, max(1.0, 1.25 * max(shares)))
    figure.savefig(file, format="png")


def draw_latency(file: Path, rows: Sequence[Timed]) -> None:
    """Median time per image of each runtime, one panel for each batch and number of threads."""
    panels = sorted({(row.batch, row.threads) for row in rows})
    figure = _figure(3.2 * len(panels) + 2, 3.4)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, (batch, threads) in zip(axes, panels, strict=True):
        here = [row for row in rows if (row.batch, row.threads) == (batch, threads)]
        times = [row.p50_ms / batch for row in here]
        colors = [GREY if row.name.endswith("float") else BLUE for row in here]
        bars = panel.barh([row.name for row in here], times, color=colors)
        labels = [f"{row.ratio:.2f}x" if row.ratio else "" for row in here]
        panel.bar_label(bars, labels, padding=3, fontsize=8)
        panel.set(title=f"batch {batch}, {threads} thread(s)", xlabel="ms per image, median")
        panel.margins(x=0.2)
    axes[0].invert_yaxis()
    figure.savefig(file, format="png")


def draw_pareto(file: Path, records: list[ExportRecord], this: ExportRecord) -> None:
    """Accuracy of all exports against their size and their time; the best for each size or time are joined."""
    figure = _figure(11, 4)
    by_size, by_time = figure.subplots(1, 2, sharey=True)
    points = [(r.sizes.file / 1000, score(r), r) for r in records]
    _pareto(by_size, points, this, "model.onnx, kB")
    timed = [(fastest(r), score(r), r) for r in records]
    _pareto(by_time, [(x, y, r) for x, y, r in timed if x is not None], this, "ms per image, fastest runtime, batch 1")
    by_size.set_ylabel("%")
    low, high = by_size.get_ylim()
    by_size.set_ylim(max(low, 0.0), min(high, 100.5))
    figure.suptitle("top-1 (or agreement with the trained network, where there are no labels) of all exports")
    figure.savefig(file, format="png")


def _pareto(axes: Axes, points: list[tuple[float, float, ExportRecord]], this: ExportRecord, label: str) -> None:
    best: list[tuple[float, float]] = []
    for x, y, record in sorted(points, key=lambda point: (point[0], -point[1])):
        own, leads = record is this, not best or y > best[-1][1]
        if leads:
            best.append((x, y))
        axes.plot(x, y, "o", color=ORANGE if own else BLUE, zorder=3 if own else 2)
        if own or leads:  # the names of all would cover each other
            text = f"{record.model} {record.quantizer} W{record.w_bits}A{record.a_bits} {record.profile}"
            axes.annotate(text, (x, y), textcoords="offset points", xytext=(4, -11 if own else 5), fontsize=7)
    if best:
        axes.step(*zip(*best, strict=True), where="post", color=GREY, zorder=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="both", labelsize=7)
        axes.margins(x=0.4, y=0.1)
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)


def score(record: ExportRecord) -> float:
    """Percent."""
    verdict = record.verify[0]
    return 100 * float(verdict.agreement if verdict.top1 is None else verdict.top1)


def fastest(record: ExportRecord) -> float | None:
    """Median milliseconds of one image on the exported file, or None if it was not measured."""
    rows = record.benchmark.rows if record.benchmark else []
    times = [row.p50_ms for row in rows if row.batch == 1 and not row.name.endswith("float")]
    return min(times) if times else None


def _numel(shape: list[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of an export, or of all runs")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        parser.error(f"{folder} is not a folder")
    if not (folder / "layers.json").is_file():
        print(as_markdown([overview(read_exports(folder))]), end="")  # noqa: T201
        return
    record = read_export(folder / "record.json")
    if record is None:
        parser.error(f"{folder} has no record of an export")
    write_report(folder, record, read_exports(folder.resolve().parents[2]))
    print(folder / "report.html")  # noqa: T201


if __name__ == "__main__":
    main()

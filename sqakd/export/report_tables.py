"""Tables of an export's report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqakd.export.artefacts import COUNTED, REQUANTIZED
from sqakd.report.table import EMPTY, Table
from sqakd.runs.export_record import ExportRecord, Sizes, Timed, Verdict

SIZE_NAMES = {
    "parameters_at_their_bits": "parameters at their bits, nothing else",
    "file": "model.onnx",
    "file_gzip": "model.onnx, gzip",
    "unpacked": "model.onnx with 8 bits for each weight",
    "float": "model.float.onnx",
    "float_gzip": "model.float.onnx, gzip",
}
# How a layer between integers makes its output.
OUTPUTS = {COUNTED: "integers, counted", REQUANTIZED: "integers"}
# Operators that hold data and compute nothing.
NOT_COMPUTED = ("Const", "Input", "Output")


def verdicts_table(verdicts: Iterable[Verdict]) -> Table:
    """Return one row for each runtime that was compared with the trained network."""
    header = ["runtime", "images", "same class", "top-1", "trained top-1"]
    header += ["largest difference of logits", "median", "standard deviation of logits"]
    rows = [
        [
            verdict.runtime,
            str(verdict.images),
            _percent(verdict.agreement),
            _percent(verdict.top1),
            _percent(verdict.trained_top1),
            *(
                _number(value, ".2g")
                for value in (verdict.largest_difference, verdict.median_difference, verdict.spread)
            ),
        ]
        for verdict in verdicts
    ]
    return Table(header, rows)


def sizes_table(sizes: Sizes) -> Table:
    """Return one row for each size."""
    known = [(name, getattr(sizes, key)) for key, name in SIZE_NAMES.items() if getattr(sizes, key) is not None]
    rows = [[name, f"{size / 1000:.1f}", _times(sizes.float, size)] for name, size in known]
    return Table(["file", "kB", "smaller than float"], rows)


def layers_table(layers: Iterable[Mapping[str, Any]]) -> Table:
    """Return one row for each integer layer; `layers` as in layers.json."""
    header = ["layer", "weights", "bits w/a", "output", "head-room", "wrong sums", "reachable", "codes that differ"]
    return Table(header, [_layer_row(layer) for layer in layers])


def _layer_row(layer: Mapping[str, Any]) -> list[str]:
    error = layer.get("regrid_error")
    regrid = f", regridded ({100 * error:.2f}% off)" if error else ""
    differ = layer.get("codes_that_differ")
    return [
        layer["name"],
        "x".join(str(length) for length in layer["shape"]),
        f"{layer['w_bits']}/{layer['a_bits']}",
        OUTPUTS.get(layer.get("form", ""), layer["output"]) + regrid,
        _number(layer.get("head_room"), ""),
        _number(layer.get("wrong_sums"), ","),
        _number(layer.get("reachable_sums"), ","),
        "0" if differ == 0 else _number(differ, ".1e"),
    ]


def speed_table(rows: Iterable[Timed]) -> Table:
    """Return one row for each runtime, file, batch size and number of threads."""
    header = ["runtime", "version", "batch", "threads", "p50 ms", "p90 ms", "ratio", "load ms", "peak MB"]
    fields = [
        [
            row.name,
            row.version,
            str(row.batch),
            str(row.threads),
            f"{row.p50_ms:.3f}",
            f"{row.p90_ms:.3f}",
            f"{row.ratio:.2f}x" if row.ratio else EMPTY,
            _number(row.load_ms, ".0f"),
            _number(None if row.peak_bytes is None else row.peak_bytes / 1e6, ".0f"),
        ]
        for row in rows
    ]
    return Table(header, fields)


def operators_table(executed: Mapping[str, Mapping[str, int]]) -> Table:
    """Return one row for each runtime with its operators, the most frequent first."""
    rows = []
    for name, operators in executed.items():
        computed = {key: count for key, count in operators.items() if not key.startswith(NOT_COMPUTED)}
        ordered = sorted(computed.items(), key=lambda item: (-item[1], item[0]))
        rows.append([name, ", ".join(f"{count} {key}" for key, count in ordered)])
    return Table(["runtime", "operators"], rows)


def overview_table(records: Iterable[ExportRecord]) -> Table:
    """Return one row for each export and runtime."""
    header = ["run", "seed", "profile", "runtime", "images", "same class", "top-1", "trained top-1"]
    header += ["largest difference of logits", "wrong sums", "kB", "smaller than float"]
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
            _number(verdict.largest_difference, ".1e"),
            f"{_total(record.layers, 'wrong_sums'):,} of {_total(record.layers, 'reachable_sums'):,}",
            f"{record.sizes.file / 1000:.1f}",
            _times(record.sizes.float, record.sizes.file),
        ]
        for record in records
        for verdict in record.verify
    ]
    return Table(header, rows)


def _times(size: int, smaller: int) -> str:
    return f"{size / smaller:.1f}x" if smaller else EMPTY


def _total(layers: Sequence[Mapping[str, Any]], key: str) -> int:
    return sum(layer.get(key, 0) for layer in layers)


def _percent(share: float | None) -> str:
    return EMPTY if share is None else f"{100 * share:.2f}%"


def _number(value: float | None, form: str) -> str:
    return EMPTY if value is None else f"{value:{form}}"

"""The report of an export: report.md, report.html, and the pictures layers.svg, latency.svg and pareto.svg.

    python -m sqakd.export.report FOLDER        of an export: writes its report again from its record.json
    python -m sqakd.export.report RUNS          of runs: prints a table of all exports

The last picture compares the export with all others of the same data set below the same folder of runs.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from sqakd.advice import left_out
from sqakd.export.artefacts import COUNTED, UNCOUNTED
from sqakd.export.machine import int8_instructions
from sqakd.export.report_pictures import latency_picture, layers_picture, pareto_picture
from sqakd.export.report_tables import (
    layers_table,
    operators_table,
    overview_table,
    sizes_table,
    speed_table,
    verdicts_table,
)
from sqakd.files import write_text
from sqakd.interrupts import errors_in_one_line
from sqakd.report.document import Chapter, Part, PictureFile, markdown_document, page_sections, picture_files
from sqakd.report.figure import Picture
from sqakd.report.page import write_page
from sqakd.report.table import as_markdown
from sqakd.runs.export_record import Benchmark, ExportRecord, read_export, read_exports
from sqakd.runs.folder import RunFolder
from sqakd.terminal import printable

BIT_OPERATIONS = (
    "sum over layers of multiply-adds x weight bits x input bits, for one image; float layers count 32 x 32"
)
NOTE_SPEED = (
    "ONNX has no convolution with fewer than 8 bits. Fewer bits make the file smaller, but not faster than 8 bits."
)
NOTES = {
    "exact": "Every layer that was trained on integers computes with these integers. What was real in training (first"
    " and last layer, residual sums unless they were trained with residual_bits) stays real.",
    "requantized": "As exact, but each sum between integers is requantized, which is faster and gives some sums another"
    " code than in training; the table of layers counts them.",
    "int8": "What was not rounded in training (the outer layers, and residual sums without residual_bits) is 8-bit too,"
    " so the file differs slightly from the trained network.",
    "trt": "The form that TensorRT reads: int8 with zero point 0, a Clip on real values, int8 skip connections. The"
    " structure was checked and the file runs in ONNX Runtime; it was not run in TensorRT.",
    "qonnx": "The trained network with quantizers as nodes of QONNX, for tools that build hardware. It was run by the"
    " package qonnx. Sums of products are real numbers there, so none of them is requantized.",
}
# Up to this share of a step, the order in which float32 adds may decide between two codes.
TIE = 1e-4

SATURATION = (
    " On x86 processors without VNNI, runtimes add pairs of 8-bit products in 16 bits, where large sums saturate. A"
    " file with weights and inputs of 8 bits may then compute other logits than in this proof."
)


def write_export_report(folder: Path, record: ExportRecord, others: Iterable[ExportRecord]) -> None:
    """Write the report into the folder of an export.

    Args:
        folder: the folder.
        record: the record of the export.
        others: the records of all exports; those of the same data set are compared with this one.
    """
    same_data = [other for other in others if other.dataset == record.dataset]
    by_file = {(other.name, other.seed, other.profile): other for other in [*same_data, record]}
    parts = chapters(record, list(by_file.values()))
    for picture in picture_files(parts):
        write_text(folder / picture.file, picture.svg())
    title = f"{record.name}, seed {record.seed}: {record.profile}"
    write_text(folder / "report.md", markdown_document(title, parts))
    write_page(folder / "report.html", title=title, sections=page_sections(parts))


def chapters(record: ExportRecord, all_exports: Sequence[ExportRecord]) -> list[Chapter]:
    """Return the chapters of a report.

    Args:
        record: the record of the export.
        all_exports: the exports that are compared, with this one.
    """
    floats = ", ".join(f"{part['name']} ({part['parameters']:,})" for part in record.stays_float) or "nothing"
    agreement: list[Part] = [*_note(record), verdicts_table(record.verify), processor_note(record)]
    sizes: list[Part] = [sizes_table(record.sizes)]
    if record.bit_operations is not None:
        sizes.append(f"{record.bit_operations / 1e6:,.1f} million bit-operations ({BIT_OPERATIONS}).")
    sizes.append(f"Stays float (parameters): {floats}; and for each integer layer a scale and a bias per channel.")
    layers: list[Part] = [
        *_pictures("layers.svg", "Size and wrong sums of each layer", layers_picture(record.layers)),
        layers_table(record.layers),
        *_sums_note(record),
        *_counted_note(record),
        "Wrong sums: of all sums that any input can produce, those that get another code than in training, counted"
        " exhaustively. Codes that differ: share on training images, compared with the trained network in float64, with"
        " each layer given the same input codes, but not each residual sum. They are the codes of ONNX Runtime with"
        " profile=exact or requantized and preprocess=false, of the package qonnx with format=qonnx, and otherwise of"
        " the same computation in torch,"
        " before anything else is rounded." + _farthest(record),
    ]
    comparison = _pictures("pareto.svg", "Accuracy of all exports", pareto_picture(all_exports, record))
    versions = "; ".join(f"{name} {version}" for name, version in record.versions.items())
    made_by = f"{versions}; opset {record.opset}; weights of the float file: {record.float_source}."
    return [
        Chapter("agreement", "Agreement with the trained network", agreement),
        Chapter("size", "Size", sizes),
        Chapter("layers", "Layers", layers),
        *([_speed(record.benchmark)] if record.benchmark and record.benchmark.rows else []),
        *([Chapter("exports", "Compared with other exports", comparison)] if comparison else []),
        Chapter("versions", "Versions", [made_by]),
    ]


def _note(record: ExportRecord) -> list[Part]:
    """Return what the profile of a file means."""
    compared = any(str(layer.get("input_node")).startswith("MultiThreshold") for layer in record.layers)
    return [NOTES[record.profile] + " Inputs are MultiThreshold nodes." * compared] if record.profile in NOTES else []


def _sums_note(record: ExportRecord) -> list[Part]:
    """Return which residual sums were trained on integers; nothing if none was."""
    if not record.sums:
        return []
    names = ", ".join(total["name"] for total in record.sums)
    kinds = sorted({f"{total['bits']} bits, step {total['step']:.4g}" for total in record.sums})
    return [f"Residual sums that were trained on integers ({'; '.join(kinds)}): {names}."]


def _counted_note(record: ExportRecord) -> list[Part]:
    """Return how many layers count stairs, and why; nothing if none does."""
    between = [layer for layer in record.layers if layer["output"] == "integers"]
    counted = [layer for layer in between if layer.get("form") == COUNTED]
    if not counted:
        return []
    wrong = sum(layer["wrong_sums_requantized"] for layer in counted)
    return [
        f"{len(counted)} of {len(between)} layers between integers are counted: one factor and one whole bias for each"
        f" channel would give {wrong:,} of their sums another code than in training, so each sum is looked up in a"
        f" table of the channel's stairs. This takes longer; {_cost_of_counting(record)}."
    ]


def _cost_of_counting(record: ExportRecord) -> str:
    """Return the time of the exact file relative to one in which no layer is counted, for each runtime."""
    rows = record.benchmark.rows if record.benchmark else []
    times = {(row.runtime, row.profile, row.batch, row.threads): row.p50_ms for row in rows}
    ratios: dict[str, list[float]] = defaultdict(list)
    for (runtime, file, batch, threads), time in times.items():
        exact = times.get((runtime, record.profile, batch, threads))
        if file == UNCOUNTED and exact:
            ratios[runtime].append(exact / time)
    if not ratios:
        return "how much longer was not measured"
    found = [f"{min(values):.2f} to {max(values):.2f} times as long in {runtime}" for runtime, values in ratios.items()]
    return "the whole file takes " + " and ".join(found)


def _farthest(record: ExportRecord) -> str:
    """Return how far the values with a differing code lie from the edge between two codes; nothing if none differs."""
    farthest = max((layer.get("farthest_from_an_edge") or 0.0 for layer in record.layers), default=0.0)
    if not farthest:
        return ""
    tie = ", where the rounding of float32 decides, in training too" if farthest < TIE else ""
    return f" The value of such a code is at most {farthest:.1e} of a step off the edge between two codes{tie}."


def _pictures(file: str, label: str, picture: Picture) -> list[Part]:
    """Return a picture as part of a chapter; nothing if it has no charts."""
    return [PictureFile(file, label, picture)] if picture.charts else []


def processor_note(record: ExportRecord) -> str:
    """Return the processor that the proof ran on, with its instructions for 8-bit integers."""
    known = record.machine or (record.benchmark.machine if record.benchmark else {})
    processor = known.get("processor", "a processor that was not recorded")
    eight_bit = any(layer.get("w_bits") == 8 for layer in record.layers) or record.profile == "int8"
    return f"Compared on {processor} ({int8_instructions(known.get('isa'))}).{SATURATION * eight_bit}"


def _speed(measured: Benchmark) -> Chapter:
    machine = measured.machine

    def fact(name: str) -> object:
        return machine.get(name, "unknown")

    parts: list[Part] = [
        f"{fact('processor')}, {fact('cores')} cores, {' '.join(machine.get('isa') or ()) or 'unknown instructions'};"
        f" {fact('system')}, Python {fact('python')}, load {fact('load')} before. {NOTE_SPEED}",
        *_pictures("latency.svg", "Latency of each runtime", latency_picture(measured.rows)),
        speed_table(measured.rows),
        "Ratio: median of ONNX Runtime on the float file divided by this median. The load time includes the import of"
        " the runtime.",
        "Operators that each runtime reports to execute:",
        operators_table(measured.executed),
    ]
    if measured.missing:
        parts.append(f"Not measured here: {', '.join(measured.missing)}.")
    return Chapter("speed", "Speed on this machine", parts)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of an export, or of all runs")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        parser.error(f"{folder} is not a folder")
    with errors_in_one_line():
        if not (folder / "layers.json").is_file():
            print(as_markdown(overview_table(read_exports(folder, left_out))), end="")  # noqa: T201
            return
        record = read_export(folder / "record.json")
        if record is None:
            parser.error(f"{folder} has no record of an export")
        write_export_report(folder, record, read_exports(RunFolder(folder.resolve().parent).runs, left_out))
    print(printable(folder / "report.html"))  # noqa: T201


if __name__ == "__main__":
    main()

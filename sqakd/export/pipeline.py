"""The whole export of one network: lower, write, verify, measure, report; all files appear together or none does."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tqdm import tqdm

from sqakd.export.artefacts import UNCOUNTED
from sqakd.export.benchmark import benchmark
from sqakd.export.content import Content, integer_content, qonnx_content
from sqakd.export.errors import ExportError
from sqakd.export.folder import NOT_COUNTED, check_folder, replacing_folder
from sqakd.export.lower import Lowering, lower
from sqakd.export.machine import machine
from sqakd.export.onnx_models import deployed, float_model, integer_model
from sqakd.export.options import Options
from sqakd.export.qonnx.execute import qonnx_session
from sqakd.export.report import write_export_report
from sqakd.export.to_onnx import OPSET
from sqakd.export.trained import Trained, ValidationBatch
from sqakd.export.verify import installed_runtimes, verify
from sqakd.model_file import QONNX
from sqakd.quantization.cost import cost
from sqakd.runs.environment import package_versions
from sqakd.runs.export_record import ExportRecord, Verdict, write_export

# The packages that make the files.
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", QONNX)


def export(trained: Trained, options: Options, folder: Path, others: Iterable[ExportRecord] = ()) -> ExportRecord:
    """Write all files of one export.

    Args:
        trained: the network, its data and its description.
        options: see `Options`.
        folder: absent, empty or the folder of an earlier export, which is replaced after everything is written and
            verified.
        others: records of other exports, which the report compares with this one.

    Returns:
        The record, as in record.json.

    Raises:
        ExportError: if the network cannot be exported, the file disagrees with it, or the folder holds anything else;
            nothing is written then.
    """
    check_folder(folder)
    with tqdm(total=4, desc="export", unit="step", disable=None, leave=False) as bar:
        made = (qonnx_content if options.format == QONNX else integer_content)(trained, options)
        bar.update()
        float_content = float_model(trained, options)
        # An estimate: the integers are compressed, and the report, which shows the sizes of the files, comes last.
        arrays = sum(array.nbytes for array in made.arrays.values())
        size = made.model.ByteSize() + float_content.ByteSize() + arrays
        with replacing_folder(folder, size=size) as place:
            onnx.save(made.model, place / "model.onnx")
            onnx.save(float_content, place / "model.float.onnx")
            np.savez_compressed(place / "weights_int.npz", **made.arrays)  # type: ignore[arg-type]
            bar.update()
            verdicts = _verified(trained, options, place)
            bar.update()
            facts = _facts(trained, made, options, verdicts)
            facts["sizes"] |= _sizes(place)
            if options.benchmark.rounds and options.format != QONNX:
                facts["benchmark"] = _measured(trained, made, options, place)
            bar.update()
            record = ExportRecord.from_dict(facts)
            write_export_report(place, record, others)
            (place / "layers.json").write_text(json.dumps(made.layers + made.sums, indent=1), encoding="utf-8")
            write_export(place / "record.json", record)
    return record


def _verified(trained: Trained, options: Options, place: Path) -> list[Verdict]:
    """Compare the file with the trained network.

    Raises:
        ExportError: if it agrees on too few images.
    """
    images = _first(trained.validation(), options.compared_images)
    runtimes = [qonnx_session] if options.format == QONNX else installed_runtimes()
    verdicts = verify(place / "model.onnx", trained.network, images, pixels=options.preprocess, runtimes=runtimes)
    _check_gate(verdicts, options)
    return verdicts


def _measured(trained: Trained, made: Content, options: Options, place: Path) -> dict[str, Any]:
    """Return the times of the files, as `benchmark` does."""
    with _measured_files(trained, made, options, place) as files:
        return benchmark(
            files,
            deployed(trained, trained.float_network, options),
            trained.image_shape,
            pixels=options.preprocess,
            timing=options.benchmark,
        )


@contextmanager
def _measured_files(trained: Trained, made: Content, options: Options, place: Path) -> Iterator[dict[str, Path]]:
    """Yield the files whose speed is measured, by name.

    Where layers count stairs, a file without counting is one of them, for a moment: it shows what counting costs.
    """
    files = {"float": place / "model.float.onnx", options.profile: place / "model.onnx"}
    if not made.counts:
        yield files
        return
    requantized = lower(trained.network, Lowering(regrid=options.regrid, count=False))
    file = place / NOT_COUNTED
    onnx.save(integer_model(trained, requantized, options)[0], file)
    try:
        yield files | {UNCOUNTED: file}
    finally:
        file.unlink(missing_ok=True)


def _facts(trained: Trained, made: Content, options: Options, verdicts: list[Verdict]) -> dict[str, Any]:
    """Return the entries of an export's record that are known before its files are measured."""
    used = cost(trained.network, trained.image_shape)
    return trained.identity | {
        "profile": options.kind,
        "pack": options.pack,
        "preprocess": options.preprocess,
        "gate": options.least_agreement,
        "opset": OPSET,
        "verify": [asdict(verdict) for verdict in verdicts],
        "machine": machine(),
        "sizes": {"parameters_at_their_bits": used.packed_bytes, "unpacked": made.unpacked_bytes},
        "logits_without_propagation": made.logits,
        "layers": made.layers,
        "sums": made.sums,
        "parameters": used.parameters,
        "bit_operations": used.bit_operations,
        "float_source": trained.float_source,
        "stays_float": made.stays_float,
        "versions": package_versions({name: name for name in PACKAGES if name != QONNX or options.format == QONNX}),
    }


def _check_gate(verdicts: list[Verdict], options: Options) -> None:
    """Refuse a file that agrees with the trained network on too few images.

    Raises:
        ExportError: with what was measured.
    """
    for verdict in verdicts:
        if verdict.agreement < options.least_agreement:
            right = [other.runtime for other in verdicts if other.agreement >= options.least_agreement]
            fault = (
                f"; {right[0]} passes the gate with the same file, so the fault may be the runtime's" if right else ""
            )
            raise ExportError(
                f"{verdict.runtime} agrees with the trained network on {100 * verdict.agreement:.2f}% of"
                f" {verdict.images} validation images, less than the gate of {100 * options.least_agreement:.2f}%, so"
                f" nothing was written (largest difference of two logits {verdict.largest_difference:.3g}, their spread"
                f" {verdict.spread:.3g}){fault}",
                topic="export.gate",
            )


def _first(batches: Iterable[ValidationBatch], images: int | None) -> Iterator[ValidationBatch]:
    """Yield batches up to a number of images; None: all."""
    left = images
    for batch in batches:
        if left is None:
            yield batch
            continue
        if left <= 0:
            return
        yield ValidationBatch(*(None if part is None else part[:left] for part in batch))  # type: ignore[arg-type]
        left -= len(batch.images)


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of both models, as they are and compressed with gzip."""
    sizes: dict[str, int] = {}
    for key, file in {"file": folder / "model.onnx", "float": folder / "model.float.onnx"}.items():
        content = file.read_bytes()
        sizes[key] = len(content)
        sizes[f"{key}_gzip"] = len(gzip.compress(content, compresslevel=9, mtime=0))
    return sizes

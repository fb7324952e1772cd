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
from torch import Tensor, fx

from sqakd.export.artefacts import REQUANTIZED, describe_layers, float_parts, integer_arrays
from sqakd.export.benchmark import benchmark
from sqakd.export.compare import Differences, code_differences
from sqakd.export.eight_bit import quantize_float_parts, quantize_skips
from sqakd.export.errors import ExportError
from sqakd.export.folder import NOT_COUNTED, replacing_folder
from sqakd.export.lower import Lowering, lower
from sqakd.export.machine import machine
from sqakd.export.modules import CountedOutput, integer_layers
from sqakd.export.onnx_models import deployed, described_qonnx, float_model, integer_model
from sqakd.export.options import Options
from sqakd.export.qonnx.execute import executed_codes, qonnx_session
from sqakd.export.qonnx.lower import lower_to_qonnx
from sqakd.export.report import write_export_report
from sqakd.export.to_onnx import OPSET
from sqakd.export.trained import Trained, ValidationBatch
from sqakd.export.verify import installed_runtimes, verify
from sqakd.model_file import QONNX
from sqakd.quantization.cost import cost
from sqakd.runs.environment import package_versions
from sqakd.runs.export_record import ExportRecord, Verdict, write_export

COMPARED_LAYER_BY_LAYER = 32  # images
COMPARED_IN_QONNX = 8  # images; the package is slow
# The packages that make the files.
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


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
    exact, signed = options.profile == "exact", options.profile == "trt"
    lowered = lower(trained.network, Lowering(regrid=options.regrid, signed=signed, count=exact))
    sample = trained.calibration(options.calibration_images)
    if options.format == QONNX:
        model = described_qonnx(trained, lowered, options)
        unpacked_bytes = None
        differences, difference = _qonnx_differences(model, lowered, trained, sample[:COMPARED_IN_QONNX])
    else:
        # Compared before anything is rounded that training did not round: each difference is an error of lowering.
        differences, difference = code_differences(lowered, trained.network, sample[:COMPARED_LAYER_BY_LAYER])
        if options.profile == "int8":
            quantize_float_parts(lowered, sample)
        elif options.profile == "trt":
            quantize_skips(lowered, sample)
        model, unpacked_bytes = integer_model(trained, lowered, options)
    with replacing_folder(folder) as place:
        onnx.save(model, place / "model.onnx")
        onnx.save(float_model(trained, options), place / "model.float.onnx")
        np.savez_compressed(place / "weights_int.npz", **integer_arrays(lowered))  # type: ignore[arg-type]
        images = _first(trained.validation(), options.compared_images)
        runtimes = [qonnx_session] if options.format == QONNX else installed_runtimes()
        verdicts = verify(place / "model.onnx", trained.network, images, pixels=options.preprocess, runtimes=runtimes)
        _check_gate(verdicts, options)
        layers = describe_layers(lowered)
        for layer in layers:
            layer |= differences.get(layer["name"], Differences()).described()
        facts = _facts(trained, lowered, options, verdicts) | {
            "logits_without_propagation": difference,
            "layers": layers,
        }
        facts["sizes"] |= _sizes(place) | {"unpacked": unpacked_bytes}
        if options.benchmark.rounds and options.format != QONNX:
            with _measured_files(trained, lowered, options, place) as files:
                facts["benchmark"] = benchmark(
                    files,
                    deployed(trained, trained.float_network, options),
                    trained.image_shape,
                    pixels=options.preprocess,
                    timing=options.benchmark,
                )
        record = ExportRecord.from_dict(facts)
        write_export_report(place, record, others)
        (place / "layers.json").write_text(json.dumps(layers, indent=1), encoding="utf-8")
        write_export(place / "record.json", record)
    return record


@contextmanager
def _measured_files(
    trained: Trained, lowered: fx.GraphModule, options: Options, place: Path
) -> Iterator[dict[str, Path]]:
    """Yield the files whose speed is measured, by name.

    Where layers count stairs, a file without counting is one of them, for a moment: it shows what counting costs.
    """
    files = {"float": place / "model.float.onnx", options.profile: place / "model.onnx"}
    if not any(isinstance(layer, CountedOutput) for layer in integer_layers(lowered)):
        yield files
        return
    requantized = lower(trained.network, Lowering(regrid=options.regrid, count=False))
    file = place / NOT_COUNTED
    onnx.save(integer_model(trained, requantized, options)[0], file)
    try:
        yield files | {REQUANTIZED: file}
    finally:
        file.unlink(missing_ok=True)


def _qonnx_differences(
    model: onnx.ModelProto, lowered: fx.GraphModule, trained: Trained, images: Tensor
) -> tuple[dict[str, Differences], float]:
    """Return how the codes that the `qonnx` package computes differ from the trained network's."""
    got = executed_codes(model, lower_to_qonnx(trained.network), images)
    return code_differences(lowered, trained.network, images, got)


def _facts(trained: Trained, lowered: fx.GraphModule, options: Options, verdicts: list[Verdict]) -> dict[str, Any]:
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
        "sizes": {"parameters_at_their_bits": used.packed_bytes},
        "parameters": used.parameters,
        "bit_operations": used.bit_operations,
        "float_source": trained.float_source,
        "stays_float": float_parts(lowered),
        "versions": package_versions({name: name for name in PACKAGES}),
    }


def _check_gate(verdicts: list[Verdict], options: Options) -> None:
    """Refuse a file that agrees with the trained network on too few images.

    Raises:
        ExportError: with what was measured.
    """
    for verdict in verdicts:
        if verdict.agreement < options.least_agreement:
            raise ExportError(
                f"{verdict.runtime} agrees with the trained network on {100 * verdict.agreement:.2f}% of"
                f" {verdict.images} validation images, less than the gate of {100 * options.least_agreement:.2f}%, so"
                f" nothing was written (largest difference of two logits {verdict.largest_difference:.3g}, their spread"
                f" {verdict.spread:.3g})",
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

"""The whole export of one network: lower, write, verify, measure, report; all files appear together or none does."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from sqakd.export.artefacts import (
    COUNTED,
    REQUANTIZED,
    describe_layers,
    describe_qonnx,
    float_parts,
    integer_arrays,
    trained_name,
)
from sqakd.export.benchmark import benchmark
from sqakd.export.compare import Differences, code_differences, recorded
from sqakd.export.eight_bit import quantize_float_parts, quantize_skips
from sqakd.export.errors import ExportError
from sqakd.export.folder import NOT_COUNTED, replacing_folder
from sqakd.export.lower import Lowering, lower
from sqakd.export.machine import machine
from sqakd.export.onnx_models import deployed, described_qonnx, float_model, integer_model
from sqakd.export.options import Options
from sqakd.export.probe import recorded_in_onnxruntime
from sqakd.export.qonnx.execute import executed, qonnx_session
from sqakd.export.qonnx.lower import lower_to_qonnx, qonnx_layers
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
    with tqdm(total=4, desc="export", unit="step", disable=None, leave=False) as bar:
        made = _make_qonnx(trained, options) if options.format == QONNX else _make(trained, options)
        bar.update()
        with replacing_folder(folder) as place:
            onnx.save(made.model, place / "model.onnx")
            onnx.save(float_model(trained, options), place / "model.float.onnx")
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
            (place / "layers.json").write_text(json.dumps(facts["layers"], indent=1), encoding="utf-8")
            write_export(place / "record.json", record)
    return record


@dataclass(frozen=True, kw_only=True)
class _Made:
    """The content of an export before anything is written.

    Attributes:
        model: the file's content.
        unpacked_bytes: its size with 8 bits for each weight; None if it has no packed weights.
        layers: the contents of layers.json.
        arrays: the contents of weights_int.npz.
        stays_float: the modules that stay float, as in record.json.
        counts: whether a layer counts stairs.
        logits: the largest difference of two logits, relative to their standard deviation.
    """

    model: onnx.ModelProto
    unpacked_bytes: int | None
    layers: list[dict[str, Any]]
    arrays: dict[str, NDArray[Any]]
    stays_float: list[dict[str, Any]]
    counts: bool
    logits: float


def _make(trained: Trained, options: Options) -> _Made:
    exact, signed = options.profile == "exact", options.profile == "trt"
    lowered = lower(trained.network, Lowering(regrid=options.regrid, signed=signed, count=exact))
    sample = trained.calibration(options.calibration_images)
    images = sample[:COMPARED_LAYER_BY_LAYER]
    # Compared before anything is rounded that training did not round: each difference is an error of lowering.
    got = recorded(lowered, images)
    if options.profile == "int8":
        quantize_float_parts(lowered, sample)
    elif options.profile == "trt":
        quantize_skips(lowered, sample)
    model, unpacked_bytes = integer_model(trained, lowered, options)
    if exact and not options.preprocess:  # then the file itself can be compared
        got = recorded_in_onnxruntime(model, lowered, images)
    differences, logits = code_differences(trained.network, images, got)
    layers = describe_layers(lowered)
    return _Made(
        model=model,
        unpacked_bytes=unpacked_bytes,
        layers=[layer | _described(differences, trained_name(lowered, layer["name"])) for layer in layers],
        arrays=integer_arrays(lowered),
        stays_float=float_parts(lowered),
        counts=any(layer.get("form") == COUNTED for layer in layers),
        logits=logits,
    )


def _make_qonnx(trained: Trained, options: Options) -> _Made:
    lowered = lower_to_qonnx(trained.network)
    model = described_qonnx(trained, lowered, options)
    images = trained.calibration(options.calibration_images)[:COMPARED_IN_QONNX]
    differences, logits = code_differences(trained.network, images, executed(model, lowered, images))
    return _Made(
        model=model,
        unpacked_bytes=None,
        layers=[layer | _described(differences, layer["name"]) for layer in describe_qonnx(lowered)],
        arrays={f"{layer.name}.weight": layer.integers.integers.numpy() for layer in qonnx_layers(lowered)},
        stays_float=float_parts(lowered),
        counts=False,
        logits=logits,
    )


def _described(differences: Mapping[str, Differences], name: str) -> dict[str, Any]:
    return dict(differences.get(name, Differences()).described())


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


def _measured(trained: Trained, made: _Made, options: Options, place: Path) -> dict[str, Any]:
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
def _measured_files(trained: Trained, made: _Made, options: Options, place: Path) -> Iterator[dict[str, Path]]:
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
        yield files | {REQUANTIZED: file}
    finally:
        file.unlink(missing_ok=True)


def _facts(trained: Trained, made: _Made, options: Options, verdicts: list[Verdict]) -> dict[str, Any]:
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

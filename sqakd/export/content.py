"""The content of an export: the model, its description, and the comparison of its codes; nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from sqakd.export.artefacts import (
    COUNTED,
    describe_layers,
    describe_qonnx,
    describe_sums,
    float_parts,
    integer_arrays,
    trained_name,
)
from sqakd.export.compare import Differences, code_differences, recorded
from sqakd.export.eight_bit import quantize_float_parts, quantize_skips
from sqakd.export.lower import Lowering, lower
from sqakd.export.onnx_models import described_qonnx, integer_model
from sqakd.export.options import AS_TRAINED, Options
from sqakd.export.probe import recorded_in_onnxruntime
from sqakd.export.qonnx.execute import executed
from sqakd.export.qonnx.lower import lower_to_qonnx, qonnx_layers
from sqakd.export.trained import Trained

COMPARED_LAYER_BY_LAYER = 32  # images
COMPARED_IN_QONNX = 8  # images; the package is slow


@dataclass(frozen=True, kw_only=True)
class Content:
    """The content of an export before anything is written.

    Attributes:
        model: the file's content.
        unpacked_bytes: its size with 8 bits for each weight; None if it has no packed weights.
        layers: the layers in layers.json.
        sums: the residual sums there.
        arrays: the contents of weights_int.npz.
        stays_float: the modules that stay float, as in record.json.
        counts: whether a layer counts stairs.
        logits: the largest difference of two logits, relative to their standard deviation.
    """

    model: onnx.ModelProto
    unpacked_bytes: int | None
    layers: list[dict[str, Any]]
    sums: list[dict[str, Any]]
    arrays: dict[str, NDArray[Any]]
    stays_float: list[dict[str, Any]]
    counts: bool
    logits: float


def integer_content(trained: Trained, options: Options) -> Content:
    """Return the content of a file for runtimes.

    Raises:
        ExportError: if the network cannot be computed with integers.
    """
    exact, signed = options.profile == "exact", options.profile == "trt"
    lowered = lower(trained.network, Lowering(regrid=options.regrid, signed=signed, count=exact))
    sample = trained.calibration(options.calibration_images)
    images = sample[:COMPARED_LAYER_BY_LAYER]
    compares_file = options.profile in AS_TRAINED and not options.preprocess
    # Compared before anything is rounded that training did not round: each difference is an error of lowering.
    got = None if compares_file else recorded(lowered, images)
    if options.profile == "int8":
        quantize_float_parts(lowered, sample)
    elif options.profile == "trt":
        quantize_skips(lowered, sample)
    model, unpacked_bytes = integer_model(trained, lowered, options)
    got = got or recorded_in_onnxruntime(model, lowered, images)
    differences, logits = code_differences(trained.network, images, got)
    layers = describe_layers(lowered)
    return Content(
        model=model,
        unpacked_bytes=unpacked_bytes,
        layers=[layer | _described(differences, trained_name(lowered, layer["name"])) for layer in layers],
        sums=describe_sums(trained.network),
        arrays=integer_arrays(lowered),
        stays_float=float_parts(lowered),
        counts=any(layer.get("form") == COUNTED for layer in layers),
        logits=logits,
    )


def qonnx_content(trained: Trained, options: Options) -> Content:
    """Return the content of a QONNX file.

    Raises:
        ExportError: if QONNX cannot express a part of the network.
    """
    lowered = lower_to_qonnx(trained.network, thresholds=options.thresholds)
    model = described_qonnx(trained, lowered, options)
    images = trained.calibration(options.calibration_images)[:COMPARED_IN_QONNX]
    differences, logits = code_differences(trained.network, images, executed(model, lowered, images))
    return Content(
        model=model,
        unpacked_bytes=None,
        layers=[layer | _described(differences, layer["name"]) for layer in describe_qonnx(lowered)],
        sums=describe_sums(trained.network),
        arrays={f"{layer.name}.weight": layer.integers.integers.numpy() for layer in qonnx_layers(lowered)},
        stays_float=float_parts(lowered),
        counts=False,
        logits=logits,
    )


def _described(differences: Mapping[str, Differences], name: str) -> dict[str, Any]:
    return dict(differences.get(name, Differences()).described())

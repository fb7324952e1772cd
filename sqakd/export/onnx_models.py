"""The two ONNX models of an export, with the metadata that their users need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
from torch import fx, nn

import sqakd
from sqakd.export.modules import IntegerLayer
from sqakd.export.options import AS_TRAINED, Options
from sqakd.export.pack import pack
from sqakd.export.qonnx.lower import qonnx_layers
from sqakd.export.qonnx.model import qonnx_model
from sqakd.export.to_onnx import Deployed, to_onnx
from sqakd.export.trained import Trained
from sqakd.export.translations import Weights
from sqakd.model_file import FORMAT, METADATA, QONNX, with_digest


def integer_model(trained: Trained, lowered: fx.GraphModule, options: Options) -> tuple[onnx.ModelProto, int]:
    """Return the model with packed weights and metadata, and its size in bytes without packing."""
    # ONNX Runtime has no integer kernel for layers with a real output, and with DequantizeLinear it would make their
    # weights real again in each run.
    weights: Weights = "cast" if options.profile in AS_TRAINED else "dequantize"
    model = to_onnx(deployed(trained, lowered, options), trained.image_shape, weights=weights)
    layers = {
        f"network.{name}.weight": module for name, module in lowered.named_modules() if isinstance(module, IntegerLayer)
    }
    facts = _facts(trained, options, layers.values())
    packed = pack(model, layers, options.pack)
    return _described(packed, facts), _described(model, facts).ByteSize()


def described_qonnx(trained: Trained, lowered: fx.GraphModule, options: Options) -> onnx.ModelProto:
    """Return a network with QONNX's quantizers as a model with metadata."""
    bits = {layer.name: [layer.integers.bits, layer.input.bits] for layer in qonnx_layers(lowered)}
    facts = _facts(trained, options, ()) | {"profile": QONNX, "bits": bits, "thresholds": options.thresholds}
    return _described(qonnx_model(lowered, trained.image_shape), facts)


def float_model(trained: Trained, options: Options) -> onnx.ModelProto:
    """Return the float network as a model with the same inputs and metadata, for comparison."""
    model = to_onnx(deployed(trained, trained.float_network, options), trained.image_shape, weights="cast")
    return _described(model, _facts(trained, options, ()))


def deployed(trained: Trained, network: nn.Module, options: Options) -> Deployed:
    """Return a network that takes what the exported file takes: pixels or normalised images."""
    mean, std = (trained.mean, trained.std) if options.preprocess else (None, None)
    return Deployed(network, mean, std)


def _facts(trained: Trained, options: Options, layers: Iterable[IntegerLayer]) -> dict[str, Any]:
    """Return what `python -m sqakd.predict` and other programs need to know to use the file."""
    preparation = trained.preparation
    return trained.identity | {
        "format": FORMAT,
        "classes": trained.class_names,
        "mean": trained.mean,
        "std": trained.std,
        "image_shape": list(trained.image_shape),
        "resize": {
            "stored": list(preparation.stored) if preparation.stored else None,
            "margin": preparation.margin,
            "stored_margin": preparation.stored_margin,
        },
        "preprocess": options.preprocess,
        "profile": options.profile,
        "bits": {layer.name: [layer.integer_weight.bits, layer.stored.input.bits] for layer in layers},
    }


def _described(model: onnx.ModelProto, facts: dict[str, Any]) -> onnx.ModelProto:
    """Add the description and its digest to a model, in place, and return the model."""
    model.producer_name, model.producer_version = "sqakd", sqakd.__version__
    onnx.helper.set_model_props(model, {METADATA: with_digest(model.SerializeToString(), facts)})
    return model

"""The two ONNX models of an export, with the metadata that their users need."""

from __future__ import annotations

import json
from collections.abc import Iterable

import onnx
from torch import fx, nn

import sqakd
from sqakd.export.modules import IntegerLayer
from sqakd.export.options import Options
from sqakd.export.pack import pack
from sqakd.export.to_onnx import Deployed, to_onnx
from sqakd.export.trained import Trained
from sqakd.export.translations import Weights

METADATA = "sqakd"  # key of the JSON text in the model's metadata; `sqakd.predict` reads it


def integer_model(trained: Trained, lowered: fx.GraphModule, options: Options) -> tuple[onnx.ModelProto, int]:
    """Return the model with packed weights and metadata, and its size in bytes without packing."""
    # ONNX Runtime has no integer kernel for layers with a real output, and with DequantizeLinear it would make their
    # weights real again in each run.
    weights: Weights = "cast" if options.profile == "exact" else "dequantize"
    model = to_onnx(deployed(trained, lowered, options), trained.image_shape, weights=weights)
    layers = {
        f"network.{name}.weight": module for name, module in lowered.named_modules() if isinstance(module, IntegerLayer)
    }
    _add_metadata(model, trained, options, layers.values())
    return pack(model, layers, options.pack), model.ByteSize()


def float_model(trained: Trained, options: Options) -> onnx.ModelProto:
    """Return the float network as a model with the same inputs and metadata, for comparison."""
    model = to_onnx(deployed(trained, trained.float_network, options), trained.image_shape, weights="cast")
    _add_metadata(model, trained, options, ())
    return model


def deployed(trained: Trained, network: nn.Module, options: Options) -> Deployed:
    """Return a network that takes what the exported file takes: pixels or normalised images."""
    mean, std = (trained.mean, trained.std) if options.preprocess else (None, None)
    return Deployed(network, mean, std)


def _add_metadata(model: onnx.ModelProto, trained: Trained, options: Options, layers: Iterable[IntegerLayer]) -> None:
    """Write what `python -m sqakd.predict` and other programs need to know to use the file."""
    facts = trained.identity | {
        "classes": trained.class_names,
        "mean": trained.mean,
        "std": trained.std,
        "image_shape": list(trained.image_shape),
        "resize": trained.resize,
        "preprocess": options.preprocess,
        "profile": options.profile,
        "bits": {layer.name: [layer.integer_weight.bits, layer.stored.input.bits] for layer in layers},
    }
    model.producer_name, model.producer_version = "sqakd", sqakd.__version__
    onnx.helper.set_model_props(model, {METADATA: json.dumps(facts, separators=(",", ":"))})

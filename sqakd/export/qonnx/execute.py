"""Execution of a QONNX model by the `qonnx` package, a reference in Python: slow, and independent of this project."""

from __future__ import annotations

import importlib.metadata
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from sqakd.export.compare import Recorded
from sqakd.export.errors import ExportError
from sqakd.export.qonnx.lower import QonnxLayer, qonnx_layers
from sqakd.export.stored import StoredInput
from sqakd.export.to_onnx import INPUT, OUTPUT
from sqakd.export.verify import Run


def qonnx_session(file: Path) -> tuple[str, Run]:
    """Open a file in the `qonnx` package; return its name and version, and the function from a batch to logits."""
    from qonnx.core.modelwrapper import ModelWrapper

    model = ModelWrapper(str(file))
    return f"qonnx {importlib.metadata.version('qonnx')}", lambda batch: _logits(model, batch)


def executed(model: onnx.ModelProto, lowered: fx.GraphModule, images: Tensor) -> Recorded:
    """Return the codes and the logits that the `qonnx` package computes.

    Args:
        model: made from `lowered`.
        lowered: with QONNX's quantizers.
        images: normalised [N, C, H, W].

    Raises:
        ExportError: if the package cannot run the model.
    """
    from qonnx.core.modelwrapper import ModelWrapper

    wrapped = ModelWrapper(model)
    read = _inputs(wrapped, qonnx_layers(lowered))
    codes: dict[str, list[NDArray[np.uint8]]] = defaultdict(list)
    logits = []
    for image in images.numpy():
        context = _execute(wrapped, image[None])
        for tensor, layer in read.items():
            codes[tensor].append(layer.levels(torch.from_numpy(context[tensor])).numpy().astype(np.uint8))
        logits.append(context[OUTPUT])
    stored: dict[str, list[Tensor]] = defaultdict(list)
    for tensor, layer in read.items():
        stored[layer.name].append(torch.from_numpy(np.concatenate(codes[tensor])))
    inputs = {layer.name: StoredInput(input=layer.input, signed=False) for layer in read.values()}
    return Recorded(stored=stored, inputs=inputs, logits=torch.from_numpy(np.concatenate(logits)))


def _inputs(model: Any, layers: list[QonnxLayer]) -> dict[str, QonnxLayer]:
    """Return the tensor of each call's quantized input with its layer; nodes are recognised by their weight."""
    found: dict[str, QonnxLayer] = {}
    left = list(layers)
    for node in model.graph.node:
        weight = _stored_weight(model, node) if node.op_type in ("Conv", "MatMul") else None
        for layer in left:
            if weight is not None and np.array_equal(weight, layer.weight.numpy()):
                found[str(node.input[0])] = layer
                left.remove(layer)
                break
    assert not left, f"{left[0].name} is not in the model"
    return found


def _stored_weight(model: Any, node: Any) -> NDArray[Any] | None:
    """Return what the quantizer of a node's weight reads, or None if the weight is not quantized."""
    quantizer = model.find_producer(node.input[1])
    stored: NDArray[Any] | None = None if quantizer is None else model.get_initializer(quantizer.input[0])
    return stored


def _execute(model: Any, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
    from qonnx.core.onnx_exec import execute_onnx

    try:
        context: dict[str, NDArray[Any]] = execute_onnx(model, {INPUT: image}, return_full_exec_context=True)
    except Exception as error:  # the package raises plain exceptions
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ExportError(f"the package qonnx cannot run the model: {reason}") from error
    return context


def _logits(model: Any, batch: NDArray[Any]) -> NDArray[np.float32]:
    return np.concatenate([_execute(model, image[None])[OUTPUT] for image in batch])

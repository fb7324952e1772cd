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

from sqakd.export.compare import InputCodes
from sqakd.export.qonnx.lower import QonnxLayer
from sqakd.export.to_onnx import INPUT, OUTPUT
from sqakd.export.verify import Run


def qonnx_session(file: Path) -> tuple[str, Run]:
    """Open a file in the `qonnx` package; return its name and version, and the function from a batch to logits."""
    from qonnx.core.modelwrapper import ModelWrapper

    model = ModelWrapper(str(file))
    return f"qonnx {importlib.metadata.version('qonnx')}", lambda batch: _logits(model, batch)


def executed_codes(model: onnx.ModelProto, lowered: fx.GraphModule, images: Tensor) -> tuple[InputCodes, Tensor]:
    """Return the codes of each layer's input, counted from 0, and the logits, as the `qonnx` package computes them.

    Args:
        model: made from `lowered`.
        lowered: with QONNX's quantizers.
        images: normalised [N, C, H, W].
    """
    from qonnx.core.modelwrapper import ModelWrapper

    wrapped = ModelWrapper(model)
    layers = [layer for layer in lowered.modules() if isinstance(layer, QonnxLayer)]
    read = [(layer, _input_of(wrapped, layer)) for layer in layers]
    found: dict[str, list[Tensor]] = defaultdict(list)
    logits = []
    for image in images.numpy():
        context = _execute(wrapped, image[None])
        for layer, name in read:
            level = np.round(context[name] / float(layer.step)) + layer.input.shift
            found[layer.name].append(torch.from_numpy(level.astype(np.uint8)))
        logits.append(torch.from_numpy(context[OUTPUT]))
    return {name: [torch.cat(codes)] for name, codes in found.items()}, torch.cat(logits)


def _input_of(model: Any, layer: QonnxLayer) -> str:
    """Return the tensor of a layer's quantized input, found by the layer's weight."""
    wanted = layer.weight.numpy()
    for node in model.graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm"):
            continue
        quantizer = model.find_producer(node.input[1])
        while quantizer is not None and quantizer.op_type == "Transpose":
            quantizer = model.find_producer(quantizer.input[0])
        stored = None if quantizer is None else model.get_initializer(quantizer.input[0])
        if stored is not None and (np.array_equal(stored, wanted) or np.array_equal(stored.T, wanted)):
            return str(node.input[0])
    raise AssertionError(f"{layer.name} is not in the model")


def _execute(model: Any, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
    from qonnx.core.onnx_exec import execute_onnx

    context: dict[str, NDArray[Any]] = execute_onnx(model, {INPUT: image}, return_full_exec_context=True)
    return context


def _logits(model: Any, batch: NDArray[Any]) -> NDArray[np.float32]:
    return np.concatenate([_execute(model, image[None])[OUTPUT] for image in batch])

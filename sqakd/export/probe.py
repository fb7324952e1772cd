"""The codes that ONNX Runtime computes: a file with the stored integers of its layers' inputs as further outputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, fx

from sqakd.export.compare import Recorded
from sqakd.export.modules import IntegerLayer
from sqakd.export.to_onnx import INPUT, OUTPUT


def probed(model: onnx.ModelProto, layers: Sequence[str]) -> tuple[onnx.ModelProto, list[str]]:
    """Return a model that also returns the stored integers of layers' inputs, and the names of these outputs.

    Args:
        model: written from a lowered network that takes normalised images.
        layers: names of modules in the lowered network, each called once.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    producers = {output: node for node in found.graph.node for output in node.output}
    readers = {name: node for node in found.graph.node for name in node.input}
    outputs = []
    for layer in layers:
        # From the weight down to the operation; the other operand of the operation is DequantizeLinear(integers).
        node = readers[f"network.{layer}.weight"]
        while node.op_type not in ("Conv", "MatMul"):
            node = readers[node.output[0]]
        outputs.append(producers[node.input[0]].input[0])
    for name in dict.fromkeys(outputs):
        found.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    return found, outputs


def recorded_in_onnxruntime(model: onnx.ModelProto, lowered: fx.GraphModule, images: Tensor) -> Recorded:
    """Return the codes and logits that ONNX Runtime computes.

    Args:
        model: written from `lowered`, with inputs stored as uint8.
        lowered: integer network.
        images: normalised [N, C, H, W].
    """
    layers = {name: m for name, m in lowered.named_modules() if isinstance(m, IntegerLayer)}
    probe, outputs = probed(model, list(layers))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [OUTPUT, *dict.fromkeys(outputs)]
    results = dict(zip(names, session.run(names, {INPUT: images.numpy()}), strict=True))
    return recorded_outputs(layers, outputs, results)


def recorded_outputs(
    layers: dict[str, IntegerLayer], outputs: Sequence[str], results: dict[str, np.ndarray]
) -> Recorded:
    """Return the outputs of a probed model as codes of layers; `outputs` has the output of each layer."""
    stored: dict[str, list[Tensor]] = defaultdict(list)
    for layer, output in zip(layers.values(), outputs, strict=True):
        stored[layer.name].append(torch.from_numpy(results[output]))
    inputs = {layer.name: layer.stored for layer in layers.values()}
    return Recorded(stored=stored, inputs=inputs, logits=torch.from_numpy(results[OUTPUT]))

"""The codes that ONNX Runtime computes: a file with the stored integers of its layers' inputs as further outputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, fx

from sqakd.export.compare import Recorded
from sqakd.export.graph import calls
from sqakd.export.modules import IntegerLayer
from sqakd.export.to_onnx import INPUT, OUTPUT


def probed(model: onnx.ModelProto, layers: Mapping[str, IntegerLayer]) -> tuple[onnx.ModelProto, list[str]]:
    """Return a model that also returns the stored integers of layers' inputs, and the names of these outputs.

    Args:
        model: written from a lowered network that takes normalised images.
        layers: modules of the lowered network by name, each called once, in the order of the calls.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    producers = {output: node for node in found.graph.node for output in node.output}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in found.graph.node:
        for name in node.input:
            readers[name].append(node)
    used: dict[str, int] = defaultdict(int)
    outputs = []
    for layer in layers:
        name = _weight(readers, layer, layers)
        # The other operand of the operation is DequantizeLinear(integers).
        operations = _operations(name, readers)
        node = operations[min(used[name], len(operations) - 1)]
        used[name] += 1
        outputs.append(producers[node.input[0]].input[0])
    for name in dict.fromkeys(outputs):
        found.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    return found, outputs


def _weight(readers: Mapping[str, list[onnx.NodeProto]], layer: str, layers: Mapping[str, IntegerLayer]) -> str:
    """Return the name of a layer's weight in a model; the exporter merges small weights with equal values."""
    equal = (other for other, module in layers.items() if torch.equal(module.weight, layers[layer].weight))
    return next(name for other in chain([layer], equal) if (name := f"network.{other}.weight") in readers)


def _operations(weight: str, readers: Mapping[str, list[onnx.NodeProto]]) -> list[onnx.NodeProto]:
    """Return the convolutions and products that use a weight, in the order of the model."""
    found: list[onnx.NodeProto] = []
    for node in readers[weight]:
        found += [node] if node.op_type in ("Conv", "MatMul") else _operations(node.output[0], readers)
    return found


def recorded_in_onnxruntime(model: onnx.ModelProto, lowered: fx.GraphModule, images: Tensor) -> Recorded:
    """Return the codes and logits that ONNX Runtime computes.

    Args:
        model: written from `lowered`, with inputs stored as uint8.
        lowered: integer network.
        images: normalised [N, C, H, W].
    """
    layers = {str(node.target): m for node, m in calls(lowered.graph, IntegerLayer) if isinstance(m, IntegerLayer)}
    probe, outputs = probed(model, layers)
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

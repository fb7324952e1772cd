"""A weight of its own for each convolution of an exported file.

The exporter stores small tensors with equal values once. A layer that is computed for two readers then has one weight
and two biases. OpenVINO 2026.4 adds a single number as the bias of such a convolution, whatever the channel.
"""

from __future__ import annotations

from collections import defaultdict

import onnx

CONVERSIONS = ("DequantizeLinear", "Cast", "Mul")  # from stored integers to the real weight
PRODUCTS = ("Conv", "MatMul")


def separate_weights(model: onnx.ModelProto) -> None:
    """Copy each int8 weight that several convolutions or products read, in place.

    A copy has the name of its layer's weight if the layer has a bias of its own.
    """
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    names = {tensor.name for tensor in model.graph.initializer}
    for tensor in list(model.graph.initializer):
        if tensor.data_type != onnx.TensorProto.INT8:
            continue
        for number, path in enumerate(_paths(tensor.name, readers)[1:], start=2):
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            copy.name = _own_name(path[-1], names) or f"{tensor.name}_{number}"
            names.add(copy.name)
            model.graph.initializer.append(copy)
            _copy_path(model, path, tensor.name, copy.name)


def _paths(name: str, readers: dict[str, list[onnx.NodeProto]]) -> list[list[onnx.NodeProto]]:
    """Return the nodes from a weight to each convolution or product that it ends in, in the order of the model."""
    found: list[list[onnx.NodeProto]] = []
    for node in readers[name]:
        if node.op_type in PRODUCTS:
            found.append([node])
        elif node.op_type in CONVERSIONS:
            found += [[node, *rest] for rest in _paths(node.output[0], readers)]
    return found


def _own_name(product: onnx.NodeProto, names: set[str]) -> str | None:
    """Return the name of a layer's weight, known from the name of its bias; None if it is not known or taken."""
    bias = product.input[2] if len(product.input) > 2 else ""
    name = f"{bias.removesuffix('.bias')}.weight"
    return name if bias.endswith(".bias") and name not in names else None


def _copy_path(model: onnx.ModelProto, path: list[onnx.NodeProto], old: str, new: str) -> None:
    """Let a convolution or product read another weight, through conversions of its own.

    Args:
        model: changed in place.
        path: from the weight to the convolution.
        old: name of the weight.
        new: name of the other weight.
    """
    *conversions, product = path
    for node in conversions:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.output[0] = f"{node.output[0]}/{new}"
        _replace_input(copy, old, new)
        model.graph.node.insert(list(model.graph.node).index(product), copy)
        old, new = node.output[0], copy.output[0]
    _replace_input(product, old, new)


def _replace_input(node: onnx.NodeProto, old: str, new: str) -> None:
    for i, name in enumerate(node.input):
        if name == old:
            node.input[i] = new

"""Rounding to 8 bits of what lowering leaves in float, for runtimes that are fast only with integers throughout.

Training never rounded these values, so a network of the profiles int8 and trt is no longer exactly the trained one. The
ranges are the smallest and largest values over a few training images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from sqakd.export.errors import ExportError
from sqakd.export.geometry import Geometry
from sqakd.export.graph import add_call, adds, calls, clamp_of, cleaned, is_no_op, module_of
from sqakd.export.integer_input import unsigned_8_bits
from sqakd.export.integer_weight import symmetric_8_bits
from sqakd.export.modules import FakeQuantize, Quantize, RealOutput
from sqakd.export.stored import StoredInput

Ranges = dict[fx.Node, tuple[float, float]]


class _RangeRecorder(fx.Interpreter):
    """Runs a graph and records the smallest and largest value of each real tensor."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.ranges: Ranges = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point():
            low, high = self.ranges.get(n, (float("inf"), float("-inf")))
            self.ranges[n] = min(low, float(value.min())), max(high, float(value.max()))
        return value


@torch.no_grad()
def value_ranges(module: fx.GraphModule, images: Tensor) -> Ranges:
    """Return the smallest and largest value of each call's result over normalised images [N, C, H, W]."""
    recorder = _RangeRecorder(module.eval())
    for part in torch.split(images, 32):
        recorder.run(part)
    return recorder.ranges


def quantize_float_parts(module: fx.GraphModule, images: Tensor) -> fx.GraphModule:
    """Round residual sums, float convolutions and float linear layers to 8 bits (profile=int8), in place.

    The logits stay real.
    """
    ranges = value_ranges(module, images)
    _quantize_float_layers(module.graph, ranges)
    for node in list(module.graph.nodes):
        if adds(node) or isinstance(module_of(node), RealOutput):
            # Rounding goes behind a ReLU, so that no level is spent on negative values that the ReLU removes.
            last = _behind_clamps(node)
            if any(user.op != "output" and not isinstance(module_of(user), Quantize) for user in last.users):
                _add_rounding(module.graph, last, ranges.get(last) or ranges.get(node), signed=False)
    # An integer addition needs both operands in 8 bits; operands from pooling, for instance, are not rounded yet.
    for node in list(module.graph.nodes):
        if adds(node):
            for operand in node.args:
                if isinstance(operand, fx.Node) and not isinstance(module_of(operand), FakeQuantize):
                    _add_rounding(module.graph, operand, ranges.get(operand), signed=False, reader=node)
    return cleaned(module)


def quantize_skips(module: fx.GraphModule, images: Tensor) -> fx.GraphModule:
    """Round one operand of each residual sum to int8, the one that is not a convolution's output (profile=trt).

    The other operand stays real, so that TensorRT can fuse the addition with the convolution.
    """
    ranges = value_ranges(module, images)
    for node in list(module.graph.nodes):
        if adds(node):
            operands = [operand for operand in node.args if isinstance(operand, fx.Node)]
            skips = [operand for operand in operands if not isinstance(module_of(operand), RealOutput)]
            skip = (skips or operands)[-1]
            _add_rounding(module.graph, skip, ranges.get(skip), signed=True, reader=node)
    return cleaned(module)


def _behind_clamps(node: fx.Node) -> fx.Node:
    """Return the last of the clamps that follow a call as its only readers, or the call itself."""
    while len(node.users) == 1:
        user = next(iter(node.users))
        if not (is_no_op(user) or clamp_of(user)):
            break
        node = user
    return node


def _add_rounding(
    graph: fx.Graph,
    node: fx.Node,
    between: tuple[float, float] | None,
    *,
    signed: bool,
    reader: fx.Node | None = None,
) -> None:
    """Round a call's result to 256 values.

    Args:
        graph: the network.
        node: the call.
        between: smallest and largest value of its result; None: the result is no real tensor and stays as it is.
        signed: see `FakeQuantize`.
        reader: the only reader that gets the rounded result; None: all readers get it.
    """
    if between is None:
        return
    rounded = add_call(graph, node, f"{node.name}_eight", FakeQuantize(*between, signed=signed), node)
    node.replace_all_uses_with(rounded, delete_user_cb=lambda user: user is not rounded and reader in (None, user))


def _quantize_float_layers(graph: fx.Graph, ranges: Ranges) -> None:
    """Replace each float convolution and linear layer by one that computes with 8-bit integers."""
    for node, layer in calls(graph, nn.Conv2d, nn.Linear):
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        x, name = node.args[0], str(node.target)
        if not isinstance(x, fx.Node) or x not in ranges:
            continue
        try:
            integer = _integer_layer(layer, name, *ranges[x])
        except ExportError as error:
            raise error.in_layer(name) from error
        codes = add_call(graph, x, f"{name}_input", Quantize(integer.stored), x)
        new = add_call(graph, codes, f"{name}_integer", integer, codes)
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        ranges[new] = ranges[node]


def _integer_layer(layer: nn.Conv2d | nn.Linear, name: str, low: float, high: float) -> RealOutput:
    stored = StoredInput(input=unsigned_8_bits(low, high), signed=False)
    weight = symmetric_8_bits(layer.weight)
    bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()
    return RealOutput(
        positive_scales=False,
        name=name,
        weight=weight,
        stored=stored,
        scale=weight.scale * stored.input.scale,
        offset=bias.double(),
        geometry=Geometry.of(layer) if isinstance(layer, nn.Conv2d) else None,
    )

"""What stays real in a lowered network, in 8 bits: for runtimes that are fast only where everything is an integer.

Training never rounded these values, so the profiles that use this are no longer the trained network. Ranges are the
smallest and largest values on a few training images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from sqakd.export.graph import add_call, adds, calls, clamp_of, does_nothing, module_of, tidy
from sqakd.export.modules import Eight, Geometry, IntegerLayer, Quantize, RealOutput, Stored
from sqakd.export.spec import INT8_HIGH, UINT8_HIGH, InputSpec, WeightSpec

Ranges = dict[fx.Node, tuple[float, float]]


class _Watch(fx.Interpreter):
    """Runs a graph and remembers the smallest and largest value of each real tensor."""

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
def ranges(module: fx.GraphModule, images: Tensor) -> Ranges:
    """Smallest and largest value of each call's result over normalised images [N, C, H, W]."""
    watch = _Watch(module.eval())
    for part in torch.split(images, 32):
        watch.run(part)
    return watch.ranges


def eight_bits(module: fx.GraphModule, images: Tensor) -> fx.GraphModule:
    """Residual sums, float convolutions and float linear layers in 8 bits (profile=int8); changes `module`.

    The logits stay real.
    """
    seen = ranges(module, images)
    _quantize_float_layers(module.graph, seen)
    for node in list(module.graph.nodes):
        if adds(node) or isinstance(module_of(node), RealOutput):
            end = _end(node)
            if any(user.op != "output" and not isinstance(module_of(user), Quantize) for user in end.users):
                _put_eight(module.graph, end, seen.get(end) or seen.get(node), signed=False)
    for node in list(module.graph.nodes):
        if adds(node):
            for operand in node.args:
                if isinstance(operand, fx.Node) and not isinstance(module_of(operand), Eight):
                    _put_eight(module.graph, operand, seen.get(operand), signed=False, reader=node)
    return tidy(module)


def eight_bit_skips(module: fx.GraphModule, images: Tensor) -> fx.GraphModule:
    """One operand of each residual sum in int8, the one that is no convolution's output (profile=trt).

    The other stays real, so that the engine adds where it convolves.
    """
    seen = ranges(module, images)
    for node in list(module.graph.nodes):
        if adds(node):
            operands = [operand for operand in node.args if isinstance(operand, fx.Node)]
            skips = [operand for operand in operands if not isinstance(module_of(operand), RealOutput)]
            skip = (skips or operands)[-1]
            _put_eight(module.graph, skip, seen.get(skip), signed=True, reader=node)
    return tidy(module)


def _end(node: fx.Node) -> fx.Node:
    """The last of the clamps that are a node's only reader, or the node itself."""
    while len(node.users) == 1:
        user = next(iter(node.users))
        if not (does_nothing(user) or clamp_of(user)):
            break
        node = user
    return node


def _put_eight(
    graph: fx.Graph,
    node: fx.Node,
    between: tuple[float, float] | None,
    *,
    signed: bool,
    reader: fx.Node | None = None,
) -> None:
    """For all readers of a node, or for one."""
    if between is None:
        return
    eight = add_call(graph, node, f"{node.name}_eight", Eight(*between, signed=signed), node)
    node.replace_all_uses_with(eight, delete_user_cb=lambda user: user is not eight and reader in (None, user))


def _quantize_float_layers(graph: fx.Graph, seen: Ranges) -> None:
    for node, layer in calls(graph, nn.Conv2d, nn.Linear):
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        x = node.args[0]
        if not isinstance(x, fx.Node) or x not in seen:
            continue
        low, high = (min(seen[x][0], 0.0), max(seen[x][1], 0.0))
        step = max(high - low, 1e-12) / UINT8_HIGH
        zero = round(-low / step)
        spec = InputSpec(
            bits=8, origin=0.0, step=step, shift=zero, levels=UINT8_HIGH, gap=1, zero_point=zero, scale=step
        )
        stored = Stored(spec=spec, signed=False)
        name = str(node.target)
        weight = _weight_in_8_bits(layer.weight)
        integer = RealOutput(
            flip=False,
            name=name,
            weight=weight,
            stored=stored,
            scale=weight.scale * step,
            offset=torch.zeros(len(layer.weight)).double() if layer.bias is None else layer.bias.detach().double(),
            geometry=Geometry.of(layer, name) if isinstance(layer, nn.Conv2d) else None,
        )
        codes = add_call(graph, x, f"{name}_input", Quantize(stored), x)
        new = add_call(graph, codes, f"{name}_integer", integer, codes)
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        seen[new] = seen[node]


def _weight_in_8_bits(weight: Tensor) -> WeightSpec:
    weight = weight.detach().double()
    scale = weight.flatten(1).abs().amax(dim=1).clamp_min(1e-12) / INT8_HIGH
    integers = (weight / scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int16)
    grid = torch.arange(-INT8_HIGH, INT8_HIGH + 1, dtype=torch.int16)
    return WeightSpec(bits=8, integers=integers, scale=scale, grid=grid)


def integer_layers(module: fx.GraphModule) -> list[IntegerLayer]:
    """The layers on integers, in the order in which they run."""
    found = dict.fromkeys(module_of(node) for node in module.graph.nodes)
    return [layer for layer in found if isinstance(layer, IntegerLayer)]

"""From a trained quantized network to one that computes with integers, in plain torch.

    1  each quantized layer becomes a call that makes integers and a call that works on them
    2  batch norm goes into the layer before it
    3  quantizers move up over max pooling and concatenation, which only choose and join values
    4  layer, ReLU and the quantizers that read it become one call from integers to integers

What is not reached by this stays as it is, in float: the first and the last layer by the papers' convention, residual
sums, pooling. Where anything but quantizers reads a layer, its output stays real.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sqakd.export.errors import ExportError
from sqakd.export.graph import (
    BATCH_NORMS,
    add_call,
    calls,
    clamp_of,
    does_nothing,
    module_of,
    moves_values,
    sources,
    tidy,
    trace,
)
from sqakd.export.modules import Geometry, IntegerOutput, Quantize, RealOutput, Stored
from sqakd.export.requantize import requantize
from sqakd.export.spec import input_spec, weight_spec
from sqakd.quantization.layers import QuantConv2d, QuantLayer

# A layer that several quantizers read is computed once for each, up to so many.
READERS = 2


@dataclass(frozen=True, kw_only=True)
class Lowering:
    """How a network is lowered.

    Attributes:
        regrid: whether weights that do not fit int8 are rounded to a grid that does; else they are refused.
        signed: whether integers of inputs are int8 with zero point 0, and scales positive, as TensorRT wants them; else
            inputs are uint8, and a channel's scale may be negative.
        search: whether biases are searched for; off only to show what it is good for.
        head_room: whether weights use the room of int8; likewise.
    """

    regrid: bool = False
    signed: bool = False
    search: bool = True
    head_room: bool = True


@torch.no_grad()
def lower(network: nn.Module, how: Lowering) -> fx.GraphModule:
    """The integer twin of a calibrated quantized network; the network itself stays as it was.

    Args:
        network: images [N, C, H, W] -> logits; quantized by `sqakd.quantization.convert`, on the CPU.
        how: see `Lowering`.

    Raises:
        ExportError: if integers cannot stand for it.
    """
    module = trace(copy.deepcopy(network).float())
    if not any(True for _ in calls(module.graph, QuantLayer)):
        raise ExportError("this network has no quantized layer; export is for runs with a quantizer, e.g. bits=2")
    _expand(module.graph, how)
    _fold_batch_norms(module.graph)
    _hoist(module.graph)
    _fuse(module.graph, how)
    return tidy(module)


def _expand(graph: fx.Graph, how: Lowering) -> None:
    """Step 1."""
    for node, layer in calls(graph, QuantLayer):
        assert isinstance(layer, QuantLayer)
        name, x = str(node.target), node.args[0] if node.args else node.kwargs["input"]
        assert isinstance(x, fx.Node)
        try:
            stored = Stored(spec=input_spec(layer.input_quantizer), signed=how.signed)
            weight = weight_spec(layer.weight_quantizer, layer.weight, regrid=how.regrid)
        except ExportError as error:
            raise ExportError(f"layer {name}: {error}") from error
        gain = 1.0 if layer.output_scale is None else float(layer.output_scale.abs())
        bias = torch.zeros(len(weight.scale)) if layer.bias is None else layer.bias.detach()
        integer = RealOutput(
            flip=how.signed,
            name=name,
            weight=weight,
            stored=stored,
            scale=weight.scale * stored.spec.scale * gain,
            offset=bias.double() * gain,
            geometry=Geometry.of(layer, name) if isinstance(layer, QuantConv2d) else None,
        )
        codes = add_call(graph, x, f"{name}_input", Quantize(stored), x)
        _replace(node, add_call(graph, codes, f"{name}_integer", integer, codes))


def _fold_batch_norms(graph: fx.Graph) -> None:
    """Step 2; also behind float convolutions."""
    for node, norm in calls(graph, *BATCH_NORMS):
        source = node.args[0]
        if not isinstance(source, fx.Node) or len(source.users) != 1 or norm.running_var is None:
            continue
        before = module_of(source)
        owner = graph.owning_module
        assert owner is not None
        if isinstance(before, RealOutput) and before.geometry is not None:
            factor, shift = affine(norm)
            owner.set_submodule(str(source.target), before.with_affine(factor, shift))
        elif type(before) is nn.Conv2d and isinstance(norm, nn.BatchNorm2d) and _calls_of(graph, source) == 1:
            owner.set_submodule(str(source.target), fuse_conv_bn_eval(before, norm))
        else:
            continue
        _replace(node, source)


def _calls_of(graph: fx.Graph, node: fx.Node) -> int:
    return sum(other.op == "call_module" and other.target == node.target for other in graph.nodes)


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Batch norm in evaluation as y = factor x + shift, float64 [C]."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    factor = 1 / (norm.running_var.double() + norm.eps).sqrt()
    shift = -norm.running_mean.double() * factor
    if norm.affine:
        factor, shift = factor * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    return factor, shift


def _hoist(graph: fx.Graph) -> None:
    """Step 3; from the last call to the first, so that a quantizer climbs as far as it can."""
    for node in reversed(list(graph.nodes)):
        quantize = module_of(node)
        if not isinstance(quantize, Quantize):
            continue
        current = node
        mover = current.args[0]
        if not (isinstance(mover, fx.Node) and moves_values(mover) and len(mover.users) == 1):
            continue
        with graph.inserting_before(mover):
            codes = {source: graph.call_module(str(node.target), (source,)) for source in sources(mover)}
        for source, code in codes.items():
            mover.replace_input_with(source, code)
        _replace(current, mover)
    if any(_can_climb(node) for node in graph.nodes):
        _hoist(graph)


def _can_climb(node: fx.Node) -> bool:
    if not isinstance(module_of(node), Quantize):
        return False
    mover = node.args[0]
    return isinstance(mover, fx.Node) and moves_values(mover) and len(mover.users) == 1


@dataclass(frozen=True)
class _Reader:
    """A quantizer that reads a layer, and what values are clamped to on the way."""

    node: fx.Node
    low: float
    high: float


def _fuse(graph: fx.Graph, how: Lowering) -> None:
    """Step 4."""
    for node, layer in calls(graph, RealOutput):
        assert isinstance(layer, RealOutput)
        readers = _readers(node, float("-inf"), float("inf"))
        if layer.geometry is None or not readers or len(readers) > READERS:
            continue
        for reader in readers:
            quantize = module_of(reader.node)
            assert isinstance(quantize, Quantize)
            fused = _with_integer_output(layer, quantize.stored, reader, how)
            source = node.args[0]
            assert isinstance(source, fx.Node)
            _replace(reader.node, add_call(graph, node, f"{layer.name}_codes", fused, source))


def _readers(node: fx.Node, low: float, high: float) -> list[_Reader] | None:
    """The quantizers that read a layer's output, or None if anything else reads it as well."""
    found: list[_Reader] = []
    for user in node.users:
        if isinstance(module_of(user), Quantize):
            found.append(_Reader(user, low, high))
            continue
        clamp = (float("-inf"), float("inf")) if does_nothing(user) else clamp_of(user)
        further = clamp and _readers(user, *(min(max(end, clamp[0]), clamp[1]) for end in (low, high)))
        if not further:
            return None
        found += further
    return found or None


def _with_integer_output(layer: RealOutput, next: Stored, reader: _Reader, how: Lowering) -> IntegerOutput:
    spec = next.spec
    low, high = (int(spec.level(torch.tensor(end, dtype=torch.float64))) for end in (reader.low, reader.high))
    try:
        certificate = requantize(
            layer.weight_spec.integers,
            scale=layer.scale,
            offset=layer.offset,
            input=layer.stored.spec,
            output=spec,
            low=low,
            high=high,
            search=how.search,
            head_room=how.head_room,
            flip=how.signed,
        )
    except ExportError as error:
        raise ExportError(f"layer {layer.name}: {error}") from error
    return IntegerOutput(
        certificate=certificate,
        next=next,
        low=low,
        high=high,
        name=layer.name,
        weight=layer.weight_spec,
        stored=layer.stored,
        scale=layer.scale,
        offset=layer.offset,
        geometry=layer.geometry,
    )


def _replace(node: fx.Node, new: fx.Node) -> None:
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    node.graph.erase_node(node)

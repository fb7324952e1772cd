"""Lowering: from a trained quantized network to one that computes with integers, in plain torch.

    1  each quantized layer becomes two calls: one makes integers, one computes with them          (here)
    2  batch norm is folded into the layer before it                                               fold.py
    3  quantizers move up over max pooling and concatenation, which only select and join values    hoist.py
    4  layer, ReLU and the quantizers behind them become one call from integers to integers        fuse.py

Everything else stays as it is, in float: the first and the last layer (the papers' convention), pooling, and residual
sums unless they were trained with `residual_bits` (`sqakd.export.residual`).
The output of a layer stays real where anything but quantizers reads it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import fx, nn

from sqakd.export.errors import ExportError
from sqakd.export.fold import fold_batch_norms
from sqakd.export.fuse import fuse
from sqakd.export.geometry import Geometry
from sqakd.export.graph import add_call, calls, cleaned, replace, trace
from sqakd.export.hoist import hoist
from sqakd.export.integer_input import integer_input
from sqakd.export.integer_weight import integer_weight
from sqakd.export.modules import Quantize, RealOutput
from sqakd.export.plain import make_plain
from sqakd.export.residual import expand_sums, join_grids, separate_rounding
from sqakd.export.stored import StoredInput
from sqakd.quantization.layers import QuantConv2d, QuantLayer
from sqakd.quantization.outer import keeps_own_inputs


@dataclass(frozen=True, kw_only=True)
class Lowering:
    """The options of lowering.

    Attributes:
        regrid: whether weights that do not fit int8 are rounded to a grid that does; otherwise they are refused.
        signed: whether inputs are stored as int8 with zero point 0 and scales are positive, which TensorRT requires.
            Otherwise inputs are uint8 and a channel's scale may be negative.
        count: whether a convolution counts stairs where requantization leaves wrong sums (`sqakd.export.counted`).
    """

    regrid: bool = False
    signed: bool = False
    count: bool = True


@torch.no_grad()
def lower(network: nn.Module, options: Lowering) -> fx.GraphModule:
    """Return the integer twin of a calibrated quantized network; the network itself does not change.

    Args:
        network: images [N, C, H, W] -> logits; quantized by `sqakd.quantization.convert`, on the CPU.
        options: see `Lowering`.

    Raises:
        ExportError: if the network cannot be computed with integers.
    """
    if not keeps_own_inputs(network):
        raise ExportError(
            "the network was trained with outer=released, where several layers and residual sums share the quantizer of"
            " a tensor and outer layers are transformed; only networks with outer=float can be exported",
            topic="export.outer",
        )
    module = trace(copy.deepcopy(network).float())
    if not any(True for _ in calls(module.graph, QuantLayer)):
        raise ExportError(
            "the network has no quantized layer, so there are no integers to export", topic="export.no_quantized_layer"
        )
    make_plain(module.graph)
    _expand(module.graph, options)
    expand_sums(module.graph, signed=options.signed)
    fold_batch_norms(module.graph)
    hoist(module.graph)
    join_grids(module.graph)
    fuse(module.graph, positive_scales=options.signed, count=options.count and not options.signed)
    if options.count and not options.signed:
        separate_rounding(module.graph)
    return cleaned(module)


def _expand(graph: fx.Graph, options: Lowering) -> None:
    """Replace each quantized layer by a call that makes integers and a call that computes with them (step 1)."""
    for node, layer in calls(graph, QuantLayer):
        assert isinstance(layer, QuantLayer)
        name, x = str(node.target), node.args[0] if node.args else node.kwargs["input"]
        assert isinstance(x, fx.Node)
        try:
            integer = _integer_layer(layer, name, options)
        except ExportError as error:
            raise error.in_layer(name) from error
        codes = add_call(graph, x, f"{name}_input", Quantize(integer.stored), x)
        replace(node, add_call(graph, codes, f"{name}_integer", integer, codes))


def _integer_layer(layer: QuantLayer, name: str, options: Lowering) -> RealOutput:
    stored = StoredInput(input=integer_input(layer.input_quantizer), signed=options.signed)
    weight = integer_weight(layer.weight_quantizer, layer.weight, regrid=options.regrid)
    # The trained layer computes (codes * codes * scale * scale + bias) * |output scale|; see QuantLayer.
    gain = 1.0 if layer.output_scale is None else float(layer.output_scale.abs())
    bias = torch.zeros(len(weight.scale)) if layer.bias is None else layer.bias.detach()
    return RealOutput(
        positive_scales=options.signed,
        name=name,
        weight=weight,
        stored=stored,
        scale=weight.scale * stored.input.scale * gain,
        offset=bias.double() * gain,
        geometry=Geometry.of(layer) if isinstance(layer, QuantConv2d) else None,
    )

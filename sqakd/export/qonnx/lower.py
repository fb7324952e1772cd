r"""From a trained quantized network to the same network with QONNX's quantizer nodes.

    y = gain * (Quant(x - origin) * Quant(weight)) + bias         (* is the convolution or product)

Everything between two quantized layers stays as it is, batch norm included. All zero points are 0. Weights on a grid
without zero, e.g. -3, -1, 1, 3 of EWGS with two bits, are odd whole numbers with one bit more. Weights of -1 and 1 use
BipolarQuant.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from sqakd.export.errors import ExportError
from sqakd.export.graph import add_call, calls, cleaned, replace, trace
from sqakd.export.integer_input import IntegerInput, integer_input
from sqakd.export.integer_weight import IntegerWeight, per_channel, whole_weight
from sqakd.export.qonnx.ops import bipolar_quant, quant, whole_range
from sqakd.quantization.layers import QuantLayer


class QonnxLayer(nn.Module):
    """A trained layer with QONNX's nodes in place of its quantizers.

    Args:
        name: name of the layer in the network.
        layer: the trained layer.

    Raises:
        ExportError: if QONNX has no node with the layer's codes.
    """

    step: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor | None

    def __init__(self, name: str, layer: QuantLayer) -> None:
        super().__init__()
        self.name, self.apply_op = name, layer.apply_op
        self.input = integer_input(layer.input_quantizer)
        self.signed = _is_signed(self.input)
        self.integers = weight = whole_weight(layer.weight_quantizer, layer.weight)
        self.bipolar, self.bits = weight.grid.tolist() == [-1, 1], _width(weight)
        shape = per_channel(weight.integers)
        one_scale = bool((weight.scale == weight.scale[0]).all())
        self.register_buffer("step", torch.tensor(self.input.step))
        self.register_buffer("scale", weight.scale[0].float() if one_scale else weight.scale.view(shape).float())
        self.register_buffer("weight", (weight.integers.double() * weight.scale.view(shape)).float())
        magnitude = 1.0 if layer.output_scale is None else float(layer.output_scale.abs())
        # Quant returns multiples of the step; the trained operand counts in its own scale.
        gain = magnitude * self.input.scale / self.input.step
        self.gain = 1.0 if abs(gain - 1) < 1e-7 else gain
        self.register_buffer("bias", None if layer.bias is None else magnitude * layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.input.origin if self.input.origin else x
        codes = quant(x, self.step, self.input.bits, self.signed)
        if self.bipolar:
            weight = bipolar_quant(self.weight, self.scale)
        else:
            weight = quant(self.weight, self.scale, self.bits, True)
        y = self.apply_op(codes, weight, None)
        y = y * self.gain if self.gain != 1 else y
        return y if self.bias is None else y + self.bias.view(-1, *[1] * (self.weight.ndim - 2))


def qonnx_layers(lowered: fx.GraphModule) -> list[QonnxLayer]:
    """Return the calls of layers with QONNX's nodes, in the order in which they run."""
    return [layer for _, layer in calls(lowered.graph, QonnxLayer) if isinstance(layer, QonnxLayer)]


@torch.no_grad()
def lower_to_qonnx(network: nn.Module) -> fx.GraphModule:
    """Return a network that computes as the trained one, with QONNX's quantizers.

    Args:
        network: quantized and calibrated, on the CPU.

    Raises:
        ExportError: if QONNX has no node with a layer's codes.
    """
    module = trace(copy.deepcopy(network).float())
    for node, layer in calls(module.graph, QuantLayer):
        assert isinstance(layer, QuantLayer)
        name, x = str(node.target), node.args[0] if node.args else node.kwargs["input"]
        assert isinstance(x, fx.Node)
        try:
            replaced = QonnxLayer(name, layer)
        except ExportError as error:
            raise error.in_layer(name) from error
        replace(node, add_call(module.graph, x, f"{name}_qonnx", replaced, x))
    return cleaned(module)


def _is_signed(input: IntegerInput) -> bool:
    """Return whether an input's levels are those of a signed Quant node.

    Raises:
        ExportError: if they are those of no Quant node with zero point 0.
    """
    low, high = -input.shift, input.levels - input.shift
    for signed in (False, True):
        if input.gap == 1 and (low, high) == whole_range(input.bits, signed=signed):
            if input.zero_point == input.shift:
                return signed
            break
    raise ExportError(
        f"the input has {input.levels + 1} codes from {input.code_range[0]} to {input.code_range[1]}; with zero point"
        f" 0, QONNX has 0 to {2**input.bits - 1} or {-(2 ** (input.bits - 1))} to {2 ** (input.bits - 1) - 1}",
        topic="export.qonnx_codes",
    )


def _width(weight: IntegerWeight) -> int:
    """Return the bits of the smallest signed Quant node that has all integers of a weight."""
    low, high = int(weight.grid[0]), int(weight.grid[-1])
    return 1 + max((-low - 1).bit_length(), high.bit_length())

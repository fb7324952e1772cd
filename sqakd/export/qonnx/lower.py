r"""From a trained quantized network to the same network with QONNX's quantizer nodes.

    y = gain * (Quant(x - origin) * Quant(weight) + bias)         (* is the convolution or product)
    y = gain * (MultiThreshold(x) * Quant(weight) + bias)         on request, the form of FINN

Everything between two quantized layers stays as it is, batch norm included, except for a ReLU that changes no
comparison with thresholds. All zero points are 0. Weights on a grid without zero, e.g. -3, -1, 1, 3 of EWGS with two
bits, are odd whole numbers with one bit more. Weights of -1 and 1 use BipolarQuant.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from sqakd.export.errors import ExportError
from sqakd.export.graph import add_call, calls, clamp_of, cleaned, replace, sources, trace
from sqakd.export.integer_input import IntegerInput, integer_input
from sqakd.export.integer_weight import IntegerWeight, per_channel, whole_weight
from sqakd.export.qonnx.ops import bipolar_quant, quant, whole_range
from sqakd.export.qonnx.sums import QonnxSum
from sqakd.export.qonnx.thresholds import compared, find_thresholds, signed_width
from sqakd.export.residual import operands
from sqakd.quantization.layers import QuantLayer
from sqakd.quantization.residual import QuantResidualSum


class QonnxLayer(nn.Module):
    """A trained layer with QONNX's nodes in place of its quantizers.

    Args:
        name: name of the layer in the network.
        layer: the trained layer.
        thresholds: whether inputs are compared with thresholds (MultiThreshold) instead of rounded (Quant).

    Raises:
        ExportError: if QONNX has no node with the layer's codes.
    """

    step: Tensor
    thresholds: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor | None

    def __init__(self, name: str, layer: QuantLayer, *, thresholds: bool) -> None:
        super().__init__()
        self.name, self.apply_op = name, layer.apply_op
        self.input = integer_input(layer.input_quantizer)
        self.has_thresholds = thresholds
        self.signed = not thresholds and _is_signed(self.input)
        self.integers = weight = whole_weight(layer.weight_quantizer, layer.weight)
        self.bipolar, self.bits = weight.grid.tolist() == [-1, 1], _width(weight)
        shape = per_channel(weight.integers)
        one_scale = bool((weight.scale == weight.scale[0]).all())
        self.register_buffer("step", torch.tensor(self.input.step))
        if thresholds:
            self.register_buffer("thresholds", find_thresholds(layer.input_quantizer, self.input)[None])
        scale, real = weight.scale.view(shape).float(), (weight.integers.double() * weight.scale.view(shape)).float()
        self.is_linear = real.ndim == 2
        if self.is_linear:  # as MatMul takes it: FINN and hls4ml know no Gemm without bias
            scale, real = scale.t(), real.t().contiguous()
        self.register_buffer("scale", scale.flatten()[0] if one_scale else scale)
        self.register_buffer("weight", real)
        magnitude = 1.0 if layer.output_scale is None else float(layer.output_scale.abs())
        # Quant returns multiples of the step, and MultiThreshold whole codes; the trained operand has its own scale.
        unit = self.input.scale / (1.0 if thresholds else self.input.step)
        gain = magnitude * unit
        self.gain = 1.0 if abs(gain - 1) < 1e-7 else gain
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach() / unit)

    def forward(self, x: Tensor) -> Tensor:
        codes = self._compared(x) if self.has_thresholds else self._rounded(x)
        if self.bipolar:
            weight = bipolar_quant(self.weight, self.scale)
        else:
            weight = quant(self.weight, self.scale, self.bits, True)
        if self.is_linear:
            y = codes @ weight if self.bias is None else codes @ weight + self.bias
        else:
            y = self.apply_op(codes, weight, self.bias)
        return y * self.gain if self.gain != 1 else y

    def levels(self, values: Tensor) -> Tensor:
        """Return the levels 0 .. `input.levels` of what the input's node returned."""
        if self.has_thresholds:
            return (values + self.input.zero_point) / self.input.gap
        return (values / self.step).round() + self.input.shift

    def _rounded(self, x: Tensor) -> Tensor:
        return quant(x - self.input.origin if self.input.origin else x, self.step, self.input.bits, self.signed)

    def _compared(self, x: Tensor) -> Tensor:
        layout = {2: "NC", 3: "NWC", 4: "NHWC"}.get(x.ndim, "") if self.is_linear else "NCHW"
        return compared(x, self.thresholds, self.input, layout)


def qonnx_layers(lowered: fx.GraphModule) -> list[QonnxLayer]:
    """Return the calls of layers with QONNX's nodes, in the order in which they run."""
    return [layer for _, layer in calls(lowered.graph, QonnxLayer) if isinstance(layer, QonnxLayer)]


@torch.no_grad()
def lower_to_qonnx(network: nn.Module, *, thresholds: bool = False) -> fx.GraphModule:
    """Return a network that computes as the trained one, with QONNX's quantizers.

    Args:
        network: quantized and calibrated, on the CPU.
        thresholds: see `QonnxLayer`.

    Raises:
        ExportError: if QONNX has no node with a layer's codes.
    """
    module = trace(copy.deepcopy(network).float())
    for node, layer in calls(module.graph, QuantLayer):
        assert isinstance(layer, QuantLayer)
        name, x = str(node.target), node.args[0] if node.args else node.kwargs["input"]
        assert isinstance(x, fx.Node)
        try:
            replaced = QonnxLayer(name, layer, thresholds=thresholds)
        except ExportError as error:
            raise error.in_layer(name) from error
        source = _before_clamps(x, replaced.thresholds) if thresholds else x
        replace(node, add_call(module.graph, source, f"{name}_qonnx", replaced, source))
    for node, total in calls(module.graph, QuantResidualSum):
        assert isinstance(total, QuantResidualSum)
        made = QonnxSum(total, thresholds=thresholds)
        replace(node, add_call(module.graph, node, f"{node.target}_qonnx", made, *operands(node)))
    return cleaned(module)


def _before_clamps(x: fx.Node, thresholds: Tensor) -> fx.Node:
    """Return the call before the ReLUs that change no comparison: none of the thresholds lies outside their range.

    A ReLU stays if something else reads its input, which it may change in place.
    """
    low, high = float(thresholds[0, 0]), float(thresholds[0, -1])
    while (clamp := clamp_of(x)) and clamp[0] < low and high <= clamp[1]:
        (source,) = sources(x)
        if len(source.users) > 1:
            break
        x = source
    return x


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
    return signed_width(int(weight.grid[0]), int(weight.grid[-1]))

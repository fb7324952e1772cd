"""ONNX nodes for the operators of a lowered network.

    requantize      DequantizeLinear, DequantizeLinear(weight) -> Conv -> QuantizeLinear -> Clip      one integer kernel
    convolve        the same up to Conv, with a real output
    multiply        as convolve, with MatMul and Add
    accumulate      DequantizeLinear with scale 1 -> Conv -> Cast                                     exact in float32
    count           Mul -> Add -> Floor -> Clip -> Gather -> GreaterOrEqual -> Add
    quantize        Sub -> QuantizeLinear -> Clip
    add             DequantizeLinear, DequantizeLinear -> Add -> QuantizeLinear                       one integer kernel
    dequantize      DequantizeLinear
    lower_bound        Max
    fake_quantize   QuantizeLinear -> DequantizeLinear

Runtimes recognise these patterns and compute each with an integer kernel. The Clip is on integers, behind
QuantizeLinear, because a Clip on real values before it keeps ONNX Runtime from using its integer kernel. TensorRT has
no Clip on integers, so signed integers (`profile=trt`) are clipped as real values.

Each translation takes the parameters of its operator in `sqakd.export.ops`, with ONNX values in place of tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import onnx
import torch
from onnx import TensorProto
from onnxscript import ir, opset21

from sqakd.export import ops  # registers the operators under torch.ops.sqakd
from sqakd.export.declaration import flattened
from sqakd.export.geometry import Geometry
from sqakd.export.qonnx import ops as qonnx

Weights = Literal["dequantize", "cast"]
op: Any = opset21  # the package's types describe constants, not the values of a graph that is being built


def translations(weights: Weights) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the translation of each operator, as torch's exporter takes them.

    Args:
        weights: how weights of layers with a real output become real; see `sqakd.export.to_onnx.to_onnx`.
    """

    def convolve(x: Any, weight: ops.WeightTensors, input: ops.InputCodes, geometry: Geometry) -> Any:
        real = _real_weight(weight, weights)
        return _convolution(_real_input(x, input), real, weight.bias, geometry)

    def multiply(x: Any, weight: ops.WeightTensors, input: ops.InputCodes) -> Any:
        real = op.Transpose(_real_weight(weight, weights), perm=[1, 0])
        return op.Add(op.MatMul(_real_input(x, input), real), weight.bias)

    names = torch.ops.sqakd
    return {
        names.quantize.default: flattened(quantize),
        names.convolve.default: flattened(convolve),
        names.requantize.default: flattened(requantize),
        names.accumulate.default: flattened(accumulate),
        names.count.default: flattened(count),
        names.multiply.default: flattened(multiply),
        names.add.default: flattened(add),
        names.dequantize.default: flattened(dequantize),
        names.lower_bound.default: flattened(lower_bound),
        names.fake_quantize.default: flattened(fake_quantize),
        **qonnx.translations(),
    }


def quantize(x: Any, origin: float, output: ops.OutputLevels) -> Any:
    """Translate real values -> stored integers."""
    return _stored(op.Sub(x, _real(origin)) if origin else x, output)


def requantize(
    x: Any, weight: ops.WeightTensors, input: ops.InputCodes, geometry: Geometry, output: ops.OutputLevels
) -> Any:
    """Translate a convolution from stored integers to the next layer's stored integers."""
    real = op.DequantizeLinear(weight.integers, weight.scale, axis=0)
    return _stored(_convolution(_real_input(x, input), real, weight.bias, geometry), output)


def accumulate(x: Any, weight: ops.SignedWeight, zero_point: int, geometry: Geometry, in_two: bool) -> Any:
    """Translate a convolution from stored integers to whole sums; they are exact in float32, in any order of terms."""
    codes = op.DequantizeLinear(x, _real(1.0), _integer(zero_point, signed=False))
    # Two things here are for OpenVINO 2026.4. It takes a product for a scale, also one with 1, and then convolves in 8
    # bits. And without the cast it joins this convolution with the steps behind it, which changes sums.
    real = _product(weight.integers, weight.sign)
    if not in_two:
        return op.Cast(_convolution(codes, real, None, geometry), to=TensorProto.INT32)
    # weight = 16 * upper + lower, with lower from -8 to 7.
    upper = op.Floor(op.Div(op.Add(real, _real(8.0)), _real(16.0)))
    lower = op.Sub(real, op.Mul(upper, _real(16.0)))
    sums = [op.Cast(_convolution(codes, part, None, geometry), to=TensorProto.INT32) for part in (upper, lower)]
    return op.Add(op.Mul(sums[0], _whole(16)), sums[1])


def count(acc: Any, staircase: ops.Staircase) -> Any:
    """Translate accumulators -> stored integers of the next layer."""
    s = staircase
    line = op.Add(op.Mul(op.Cast(acc, to=TensorProto.FLOAT), _per_channel(s.factor)), _per_channel(s.shift))
    below = op.Clip(op.Floor(line), _real(s.low), _real(s.high - 1))
    place = op.Cast(op.Add(below, _per_channel(s.first)), to=TensorProto.INT32)
    reached = op.GreaterOrEqual(acc, op.Gather(s.stairs, place))
    level = op.Add(below, op.Cast(reached, to=TensorProto.FLOAT))
    return op.Cast(level if s.gap == 1 else op.Mul(level, _real(s.gap)), to=TensorProto.UINT8)


def add(a: Any, b: Any, left: ops.InputCodes, right: ops.InputCodes, output: ops.OutputLevels) -> Any:
    """Translate a sum of stored integers; QuantizeLinear cuts negative sums off."""
    return _stored(op.Add(_real_input(a, left), _real_input(b, right)), output)


def dequantize(x: Any, input: ops.InputCodes) -> Any:
    """Translate stored integers -> real values."""
    return _real_input(x, input)


def lower_bound(x: Any, low: float) -> Any:
    """Translate a lower bound; runtimes compute it, whereas they may remove a Clip before QuantizeLinear."""
    return op.Max(x, _real(low))


def fake_quantize(x: Any, scale: float, zero_point: int, signed: bool) -> Any:
    """Translate the rounding of real values to 256 real values."""
    stored = op.QuantizeLinear(x, _real(scale), _integer(zero_point, signed))
    return op.DequantizeLinear(stored, _real(scale), _integer(zero_point, signed))


def _stored(y: Any, output: ops.OutputLevels) -> Any:
    """Round real values, from which the origin is already subtracted, to stored integers."""
    step, shift, low, high = output.step, output.shift, output.low, output.high
    if output.signed:
        if (low, high) != (-128, 127):
            y = op.Clip(y, _real((low - shift) * step), _real((high - shift) * step))
        return op.QuantizeLinear(y, _real(step), _integer(shift, signed=True))
    stored = op.QuantizeLinear(y, _real(step), _integer(shift, signed=False))
    if (low, high) != (0, 255):
        stored = op.Clip(stored, _integer(low, signed=False), _integer(high, signed=False))
    if output.gap != 1:
        # int32, because some runtimes refuse or clip products of 8-bit integers.
        wide = op.Mul(op.Cast(stored, to=TensorProto.INT32), _whole(output.gap))
        stored = op.Cast(wide, to=TensorProto.UINT8)
    return stored


def _real_input(x: Any, input: ops.InputCodes) -> Any:
    signed = x.dtype == ir.DataType.INT8
    return op.DequantizeLinear(x, _real(input.scale), _integer(input.zero_point, signed))


def _real_weight(weight: ops.WeightTensors, weights: Weights) -> Any:
    integers: Any = weight.integers
    if weights == "dequantize":
        return op.DequantizeLinear(integers, weight.scale, axis=0)
    return _product(integers, weight.scale)


def _product(integers: Any, scale: Any) -> Any:
    """Multiply int8 weights by one number per output channel, as nodes that runtimes compute once."""
    shape = op.Constant(value_ints=[-1, *[1] * (len(integers.shape) - 1)])
    return op.Mul(op.Cast(integers, to=TensorProto.FLOAT), op.Reshape(scale, shape))


def _per_channel(values: Any) -> Any:
    """Return one number per channel in the shape in which it broadcasts over [N, C, H, W]."""
    return op.Reshape(values, op.Constant(value_ints=[-1, 1, 1]))


def _convolution(x: Any, weight: Any, bias: Any, geometry: Geometry) -> Any:
    return op.Conv(
        x,
        weight,
        bias,
        strides=list(geometry.stride),
        pads=list(geometry.pads),
        dilations=list(geometry.dilation),
        group=int(geometry.groups),
    )


def _integer(value: int, signed: bool) -> Any:
    dtype = TensorProto.INT8 if signed else TensorProto.UINT8
    return op.Constant(value=onnx.helper.make_tensor("value", dtype, [], [value]))


def _whole(value: int) -> Any:
    return op.Constant(value=onnx.helper.make_tensor("value", TensorProto.INT32, [], [value]))


def _real(value: float) -> Any:
    return op.Constant(value=onnx.helper.make_tensor("value", TensorProto.FLOAT, [], [value]))

r"""The operators of a lowered network: exact integer arithmetic in torch, and the names that become ONNX nodes.

    quantize        real values -> stored integers                      level = round((x - origin) / step)
    convolve        stored integers -> real values                      y = unit * acc + bias
    requantize      stored integers -> the next layer's integers        level = round(factor * (acc + integer bias))
    accumulate      stored integers -> accumulators                     acc, in int32
    count           accumulators -> the next layer's integers           level = low + number of stairs <= acc
    multiply        as convolve, for a linear layer
    add             two tensors of stored integers -> stored integers   the sum of their codes
    dequantize      stored integers -> real values                      scale * code
    lower_bound        real values -> real values                          the larger of a value and one number
    fake_quantize   real values -> 256 evenly spaced real values        for an 8-bit residual stream

`acc` is the accumulator: the sum of products of codes and integer weights. unit = input scale * weight scale is the
value of one accumulator unit.

Sums are exact here, because float64 holds every whole number up to 2**53. The steps behind a sum use float32, as
runtimes do. Without operators of their own, these computations would be traced as divisions and roundings, and the ONNX
file would hold a float network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sqakd.export.declaration import operator
from sqakd.export.geometry import Geometry


@dataclass(frozen=True, kw_only=True)
class WeightTensors:
    """The tensors of a layer that computes with integers.

    Attributes:
        integers: int8 [out, in / groups, kH, kW] of a convolution, or [out, in] of a linear layer.
        scale: float32 [out], real value of the integer 1.
        bias: float32 [out], in real values.
    """

    integers: Tensor
    scale: Tensor
    bias: Tensor


@dataclass(frozen=True, kw_only=True)
class InputCodes:
    """The meaning of a layer's stored input: value = scale * (stored - zero_point).

    Attributes:
        scale: real value of code 1.
        zero_point: stored integer of code 0, which also pads.
    """

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class OutputLevels:
    """The rounding of a quotient to stored integers: gap * clip(round(quotient) + shift, low, high).

    Attributes:
        step: distance between two levels, in real values; the divisor of the quotient.
        shift: added after rounding.
        low: lowest level.
        high: highest level.
        gap: distance between two codes.
        signed: whether integers are stored as int8 instead of uint8.
    """

    step: float
    shift: int
    low: int
    high: int
    gap: int
    signed: bool

    def round(self, quotient: Tensor) -> Tensor:
        """Return the stored integers of values that are already divided by `step`."""
        level = (quotient.round() + self.shift).clamp(self.low, self.high)
        return (self.gap * level).to(torch.int8 if self.signed else torch.uint8)


@dataclass(frozen=True, kw_only=True)
class SignedWeight:
    """The weight of a convolution whose sums are counted.

    Attributes:
        integers: int8 [out, in / groups, kH, kW].
        sign: float32 [out], -1 where the real value falls as the sum of these integers rises, otherwise 1; 1 everywhere
            unless the sum is computed in two parts.
    """

    integers: Tensor
    sign: Tensor


@dataclass(frozen=True, kw_only=True)
class Staircase:
    """The stairs of each channel, with a straight line that differs from them by less than half a level.

    Attributes:
        factor: levels per accumulator unit, float32 [C].
        shift: level of accumulator 0, not rounded, float32 [C].
        first: position of each channel's first stair in `stairs`, minus `low`; whole numbers in float32 [C].
        stairs: smallest accumulator with at least the level low + 1, low + 2 .. high, channel after channel, int32.
        low: lowest level.
        high: highest level, above `low`.
        gap: distance between two codes.
    """

    factor: Tensor
    shift: Tensor
    first: Tensor
    stairs: Tensor
    low: int
    high: int
    gap: int


@operator
def quantize(x: Tensor, origin: float, output: OutputLevels) -> Tensor:
    """Return the stored integers of real values `x`, of any shape; `origin` is the value that rounds to `shift`."""
    return output.round((x - origin) / output.step)


@operator
def convolve(x: Tensor, weights: WeightTensors, input: InputCodes, geometry: Geometry) -> Tensor:
    """Convolve stored integers [N, in, H, W] and return real values [N, out, H', W'], float32."""
    unit = input.scale * weights.scale.double()
    acc = _sums(x, weights, input, geometry)
    return (acc * unit[:, None, None] + weights.bias.double()[:, None, None]).float()


@operator
def requantize(
    x: Tensor, weights: WeightTensors, input: InputCodes, geometry: Geometry, output: OutputLevels
) -> Tensor:
    """Convolve stored integers [N, in, H, W] and return the next layer's stored integers [N, out, H', W'].

    The bias is a whole number of accumulator units, from which the next layer's origin is already subtracted.
    """
    # Every step from here on repeats an integer kernel of ONNX Runtime, in the same order and in the same precision:
    # the bias becomes int32, the sum becomes float32 once, and one float32 factor per channel scales the sum.
    unit = torch.tensor(input.scale, dtype=torch.float32) * weights.scale
    integer_bias = (weights.bias / unit).round().double()
    total = _sums(x, weights, input, geometry) + integer_bias[:, None, None]
    factor = unit / torch.tensor(output.step, dtype=torch.float32)
    return output.round(total.float() * factor[:, None, None])


@operator
def accumulate(x: Tensor, weight: SignedWeight, zero_point: int, geometry: Geometry, in_two: bool) -> Tensor:
    """Convolve stored integers [N, in, H, W] and return sign * accumulator, int32 [N, out, H', W'].

    With `in_two`, a runtime computes two sums with four bits of the weights each, so that float32 holds both exactly.
    """
    integers = weight.integers.double() * weight.sign.double()[:, None, None, None]
    return _convolved(x, integers, zero_point, geometry).to(torch.int32)


@operator
def count(acc: Tensor, staircase: Staircase) -> Tensor:
    """Return the stored integers of accumulators [N, C, H, W]; the steps are those of `sqakd.export.counted`."""
    s = staircase
    line = acc.float() * s.factor[:, None, None] + s.shift[:, None, None]
    below = line.floor().clamp(s.low, s.high - 1)
    next_stair = s.stairs[(below + s.first[:, None, None]).long()]
    return (s.gap * (below + (acc >= next_stair))).to(torch.uint8)


@operator
def multiply(x: Tensor, weights: WeightTensors, input: InputCodes) -> Tensor:
    """Multiply stored integers [..., in] by a linear layer's weights and return real values [..., out], float32."""
    acc = (x.double() - input.zero_point) @ weights.integers.double().T
    return (acc * (input.scale * weights.scale.double()) + weights.bias.double()).float()


@operator
def add(a: Tensor, b: Tensor, left: InputCodes, right: InputCodes, output: OutputLevels) -> Tensor:
    """Return the stored integers of the sum of two tensors, whose codes have one scale, the step of the output."""
    return output.round((a.double() - left.zero_point) + (b.double() - right.zero_point))


@operator
def dequantize(x: Tensor, input: InputCodes) -> Tensor:
    """Return the real values of stored integers, float32."""
    return (x.float() - input.zero_point) * input.scale


@operator
def lower_bound(x: Tensor, low: float) -> Tensor:
    """Return the larger of each real value and `low`."""
    return x.clamp_min(low)


@operator
def fake_quantize(x: Tensor, scale: float, zero_point: int, signed: bool) -> Tensor:
    """Round `x` to 256 real values: scale * (clip(round(x / scale) + zero_point) - zero_point)."""
    low, high = (-128, 127) if signed else (0, 255)
    return (((x / scale).round() + zero_point).clamp(low, high) - zero_point) * scale


def _sums(x: Tensor, weights: WeightTensors, input: InputCodes, geometry: Geometry) -> Tensor:
    """Return the accumulators, whole numbers in float64 [N, out, H', W']."""
    return _convolved(x, weights.integers.double(), input.zero_point, geometry)


def _convolved(x: Tensor, weight: Tensor, zero_point: int, geometry: Geometry) -> Tensor:
    top, left, bottom, right = geometry.pads
    # The zero point is subtracted before padding, so that the padding has code 0.
    codes = F.pad(x.double() - zero_point, (left, right, top, bottom))
    return F.conv2d(codes, weight, None, list(geometry.stride), 0, list(geometry.dilation), geometry.groups)

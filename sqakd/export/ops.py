r"""The operators of a lowered network: real arithmetic in torch, and the names under which ONNX gets its own nodes.

    quantize      real values -> stored integers                                    (x - origin) / step
    convolve      stored integers -> real values                                    acc * scale + bias
    requantize    stored integers -> stored integers of the next layer              acc, bias and one factor
    multiply      as convolve, for a linear layer
    eight         real values -> the same on 256 levels                             for an 8-bit residual stream

Sums are exact here: products of whole numbers, added in float64. What follows a sum is done in float32, as runtimes do.
Operators without such names would be taken apart into divisions and roundings, and ONNX would hold a float network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.library.custom_op("sqakd::quantize", mutates_args=())
def quantize(x: Tensor, origin: float, step: float, shift: int, low: int, high: int, gap: int, signed: bool) -> Tensor:
    """Stored integers gap * clip(round((x - origin) / step) + shift, low, high).

    Args:
        x: float32, any shape.
        origin: value that rounds to `shift`.
        step: distance of two levels.
        shift: added after rounding.
        low: lowest level.
        high: highest level.
        gap: distance of two codes.
        signed: int8 instead of uint8.
    """
    level = (((x - origin) / step).round() + shift).clamp(low, high)
    return (gap * level).to(torch.int8 if signed else torch.uint8)


@quantize.register_fake
def _(x: Tensor, origin: float, step: float, shift: int, low: int, high: int, gap: int, signed: bool) -> Tensor:
    return torch.empty_like(x, dtype=torch.int8 if signed else torch.uint8)


@torch.library.custom_op("sqakd::convolve", mutates_args=())
def convolve(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    input_scale: float,
    zero_point: int,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Real output of a convolution of codes.

    Args:
        x: stored integers [N, in, H, W].
        weight: int8 [out, in / groups, kH, kW].
        weight_scale: [out].
        bias: [out], real.
        input_scale: value of one input code.
        zero_point: stored integer of code 0, which also pads.
        stride: two numbers.
        pads: top, left, bottom, right.
        dilation: two numbers.
        groups: of the convolution.
    """
    acc = _sums(x, weight, zero_point, stride, pads, dilation, groups)
    unit = input_scale * weight_scale.double()
    return (acc * unit[:, None, None] + bias.double()[:, None, None]).float()


@convolve.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    input_scale: float,
    zero_point: int,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    return x.new_empty(_shape(x, weight, stride, pads, dilation), dtype=torch.float32)


@torch.library.custom_op("sqakd::requantize", mutates_args=())
def requantize(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    input_scale: float,
    zero_point: int,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    step: float,
    shift: int,
    low: int,
    high: int,
    gap: int,
    signed: bool,
) -> Tensor:
    """Stored integers of the next layer's input, by one integer bias and one factor per channel.

    Args as `convolve` and `quantize`, except:
        bias: a whole number times input_scale * weight_scale, the next layer's origin already taken off.
    """
    unit = torch.tensor(input_scale, dtype=torch.float32) * weight_scale
    acc = _sums(x, weight, zero_point, stride, pads, dilation, groups)
    total = acc + (bias / unit).round().double()[:, None, None]
    factor = unit / torch.tensor(step, dtype=torch.float32)
    level = ((total.float() * factor[:, None, None]).round() + shift).clamp(low, high)
    return (gap * level).to(torch.int8 if signed else torch.uint8)


@requantize.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    input_scale: float,
    zero_point: int,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    step: float,
    shift: int,
    low: int,
    high: int,
    gap: int,
    signed: bool,
) -> Tensor:
    return x.new_empty(_shape(x, weight, stride, pads, dilation), dtype=torch.int8 if signed else torch.uint8)


@torch.library.custom_op("sqakd::multiply", mutates_args=())
def multiply(
    x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor, input_scale: float, zero_point: int
) -> Tensor:
    """Real output of a linear layer on codes.

    Args:
        x: stored integers [..., in].
        weight: int8 [out, in].
        weight_scale: [out].
        bias: [out], real.
        input_scale: value of one input code.
        zero_point: stored integer of code 0.
    """
    acc = (x.double() - zero_point) @ weight.double().T
    return (acc * (input_scale * weight_scale.double()) + bias.double()).float()


@multiply.register_fake
def _(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor, input_scale: float, zero_point: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=torch.float32)


@torch.library.custom_op("sqakd::eight", mutates_args=())
def eight(x: Tensor, scale: float, zero_point: int, signed: bool) -> Tensor:
    """`x` on 256 levels: scale * (clip(round(x / scale) + zero_point) - zero_point)."""
    low, high = (-128, 127) if signed else (0, 255)
    return (((x / scale).round() + zero_point).clamp(low, high) - zero_point) * scale


@eight.register_fake
def _(x: Tensor, scale: float, zero_point: int, signed: bool) -> Tensor:
    return torch.empty_like(x)


def _sums(
    x: Tensor,
    weight: Tensor,
    zero_point: int,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Whole numbers, float64 [N, out, H', W']."""
    top, left, bottom, right = pads
    codes = F.pad(x.double() - zero_point, (left, right, top, bottom))
    return F.conv2d(codes, weight.double(), None, list(stride), 0, list(dilation), groups)


def _shape(
    x: Tensor, weight: Tensor, stride: Sequence[int], pads: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    spatial = [
        (x.shape[2 + i] + pads[i] + pads[2 + i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1
        for i in range(2)
    ]
    return (x.shape[0], weight.shape[0], *spatial)

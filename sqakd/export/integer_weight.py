r"""A quantized weight as integers.

w_q = scale * W        W whole numbers [C, ...], scale one number per output channel
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sqakd.export.errors import ExportError
from sqakd.quantization.quantizers.base import Quantizer

INT8_LOW, INT8_HIGH = -128, 127


@dataclass(frozen=True, kw_only=True)
class IntegerWeight:
    """A quantized weight as integers.

    Attributes:
        bits: bits of the quantizer.
        integers: int16, the weight's shape.
        scale: real value of the integer 1, per output channel, float64 [C].
        grid: the integers that may occur, ascending, int16.
        error: relative error of a regridded weight; 0 where the integers are the trained ones.
    """

    bits: int
    integers: Tensor
    scale: Tensor
    grid: Tensor
    error: float = 0.0


@torch.no_grad()
def integer_weight(quantizer: Quantizer, weight: Tensor, *, regrid: bool) -> IntegerWeight:
    """Return the integers of a weight.

    Args:
        quantizer: the weight's quantizer, calibrated.
        weight: [C, ...].
        regrid: whether integers that do not fit int8 are rounded to a grid that does; otherwise they are refused.

    Raises:
        ExportError: if the integers do not fit int8 and `regrid` is not set.
    """
    whole = whole_weight(quantizer, weight)
    grid = whole.grid
    if int(grid[0]) >= INT8_LOW and int(grid[-1]) <= INT8_HIGH:
        return whole
    if not regrid:
        raise ExportError(
            f"{type(quantizer).__name__} at {quantizer.bits} bits has weights on {len(grid)} whole numbers from"
            f" {int(grid[0])} to {int(grid[-1])}, which do not fit 8-bit integers",
            topic="export.weights_need_nine_bits",
        )
    return _regridded(whole.integers, whole.scale, quantizer.bits)


@torch.no_grad()
def whole_weight(quantizer: Quantizer, weight: Tensor) -> IntegerWeight:
    """Return the integers of a weight [C, ...] on a grid of any size."""
    codes = quantizer.codes(weight)
    return IntegerWeight(
        bits=quantizer.bits,
        integers=codes.integers - codes.zero_point,
        scale=codes.scale.detach().double().flatten().expand(weight.shape[0]),
        grid=quantizer.grid() - codes.zero_point,
    )


def symmetric_8_bits(weight: Tensor) -> IntegerWeight:
    """Round a float weight [C, ...] to -127 .. 127, with one scale per output channel."""
    weight = weight.detach().double()
    # A channel of zeros gets a tiny scale instead of a division by zero.
    scale = weight.flatten(1).abs().amax(dim=1).clamp_min(1e-12) / INT8_HIGH
    integers = (weight / scale.view(per_channel(weight))).round().to(torch.int16)
    return IntegerWeight(bits=8, integers=integers, scale=scale, grid=_symmetric_grid())


def head_room(integers: Tensor, largest: int) -> int:
    """Return the largest k for which k * integers fits -largest .. largest; at least 1."""
    return max(1, largest // max(1, int(integers.abs().max())))


def per_channel(weight: Tensor) -> tuple[int, ...]:
    """Return the shape (-1, 1, ...), in which one number per output channel broadcasts over `weight`."""
    return (-1, *[1] * (weight.ndim - 1))


def _regridded(integers: Tensor, scale: Tensor, bits: int) -> IntegerWeight:
    """Round nine-bit integers to -127 .. 127, so that each channel's largest one becomes 127 or -127."""
    largest = integers.reshape(len(integers), -1).abs().amax(dim=1).clamp_min(1).double()
    factor = INT8_HIGH / largest
    rounded = (integers.double() * factor.view(per_channel(integers))).round()
    # The error is relative: |rounded weight - trained weight| / |trained weight|, both as vectors.
    difference = rounded / factor.view(per_channel(integers)) - integers
    error = difference.square().sum() / integers.double().square().sum()
    return IntegerWeight(
        bits=bits,
        integers=rounded.to(torch.int16),
        scale=scale / factor,
        grid=_symmetric_grid(),
        error=float(error.sqrt()),
    )


def _symmetric_grid() -> Tensor:
    return torch.arange(-INT8_HIGH, INT8_HIGH + 1, dtype=torch.int16)

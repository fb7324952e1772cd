"""The thresholds of an input quantizer in single precision, as FINN's MultiThreshold node compares with them.

An input quantizer is a staircase. A threshold is the smallest number of single precision that training gives at least
the code behind a stair, so comparisons reproduce the codes of training without a rounding of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqakd.export.integer_input import FARTHEST, IntegerInput
from sqakd.export.qonnx.ops import multi_threshold
from sqakd.quantization.quantizers.base import Quantizer

SIGN_BIT = 2**31
BISECTIONS = 33  # halvings of all numbers of single precision


@torch.no_grad()
def find_thresholds(quantizer: Quantizer, input: IntegerInput) -> Tensor:
    """Return the smallest value with each code but the first, ascending, float32 [codes - 1].

    Args:
        quantizer: calibrated, in single precision.
        input: the integers of the quantizer.
    """
    wanted = input.gap * torch.arange(1, input.levels + 1) - input.zero_point
    low, high = (_place(torch.full((input.levels,), end * FARTHEST)) for end in (-1.0, 1.0))
    for _ in range(BISECTIONS):
        middle = (low + high).div(2, rounding_mode="floor")
        above = quantizer.encode(_number(middle))[0].round() >= wanted
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return _number(high)


def compared(x: Tensor, thresholds: Tensor, input: IntegerInput, layout: str) -> Tensor:
    """Return the codes of real values as whole numbers, by a MultiThreshold node.

    Args:
        x: real values of any shape.
        thresholds: of `find_thresholds`, [1, codes - 1].
        input: the integers of the quantizer.
        layout: QONNX's name for the order of the dimensions of `x`, e.g. "NCHW".
    """
    return multi_threshold(x, thresholds, float(input.gap), float(-input.zero_point), data_type(input), layout)


def data_type(input: IntegerInput) -> str:
    """Return the name that QONNX has for the smallest type with all codes of an input.

    >>> from sqakd.export.integer_input import unsigned_8_bits
    >>> data_type(unsigned_8_bits(0.0, 1.0)), data_type(unsigned_8_bits(-1.0, 1.0))
    ('UINT8', 'INT8')
    """
    low, high = input.code_range
    if (low, high, input.gap) == (-1, 1, 2):
        return "BIPOLAR"
    return f"INT{signed_width(low, high)}" if low < 0 else f"UINT{high.bit_length()}"


def signed_width(low: int, high: int) -> int:
    """Return the bits of the smallest signed whole numbers that contain low .. high.

    >>> signed_width(-4, 3), signed_width(-1, 4)
    (3, 4)
    """
    return 1 + max((-low - 1).bit_length(), high.bit_length())


def _place(x: Tensor) -> Tensor:
    """Return the place of numbers among all of single precision, 0 for 0.0: the next number has the next place."""
    bits = x.view(torch.int32).long()
    return torch.where(bits < 0, -(bits + SIGN_BIT), bits)


def _number(place: Tensor) -> Tensor:
    """Return the number at a place; undoes `_place`."""
    return torch.where(place < 0, -place - SIGN_BIT, place).to(torch.int32).view(torch.float32)

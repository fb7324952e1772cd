"""The thresholds of an input quantizer in single precision, as FINN's MultiThreshold node compares with them.

An input quantizer is a staircase. A threshold is the smallest number of single precision that training gives at least
the code behind a stair, so comparisons reproduce the codes of training without a rounding of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqakd.export.integer_input import FARTHEST, IntegerInput
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


def _place(x: Tensor) -> Tensor:
    """Return the place of numbers among all of single precision, 0 for 0.0: the next number has the next place."""
    bits = x.view(torch.int32).long()
    return torch.where(bits < 0, -(bits + SIGN_BIT), bits)


def _number(place: Tensor) -> Tensor:
    """Return the number at a place; undoes `_place`."""
    return torch.where(place < 0, -place - SIGN_BIT, place).to(torch.int32).view(torch.float32)

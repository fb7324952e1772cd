r"""EWGS ranges: learned lower and upper bounds, one pair per tensor.

Paper: Lee, Kim, Ham 2021, "Network Quantization with Element-wise Gradient Scaling", CVPR 2021
(https://arxiv.org/abs/2104.00903), section 3.1. With L = 2**bits - 1 and t = clip((v - l) / (u - l), 0, 1):

    weights       v_q = 2 round(L t) / L - 1   in [-1, 1]   codes -L, -L+2, .. L (odd: no zero)   scale 1 / L
    activations   v_q = round(L t) / L         in [ 0, 1]   codes 0 .. L                         scale 1 / L

The layer's learned output scale gives the result its magnitude back. The paper's gradient is the rounding rule
`ElementWiseGradientScaling`; any other rule combines with these bounds as well. SQAKD's release carries two more
scalars per layer that nothing reads; they are left out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sqakd.quantizers.base import Quantizer
from sqakd.quantizers.rounding import Rounding

DEVIATIONS = 3.0
# Standard deviation of a half-normal variable relative to the normal it was cut from.
HALF_NORMAL = math.sqrt(1 - 2 / math.pi)


class LearnedBounds(Quantizer):
    """Shared by weights and activations: two learned numbers, `lower` and `upper`."""

    def __init__(self, *, bits: int, rounding: Rounding) -> None:
        super().__init__(bits=bits, rounding=rounding)
        self.lower = nn.Parameter(torch.tensor(0.0))
        self.upper = nn.Parameter(torch.tensor(1.0))
        # A buffer rather than a constant, so that it lives on the layer's device and follows its dtype.
        self.register_buffer("unit", torch.tensor(1.0 / self.steps), persistent=False)

    def scale(self) -> Tensor:
        unit: Tensor = self.get_buffer("unit")
        return unit

    def _level(self, x: Tensor) -> Tensor:
        codes: Tensor = self.rounding(x, self.lower, self.upper, self.steps)
        return codes


class WeightBounds(LearnedBounds):
    """Odd codes -L .. L; starts at three standard deviations on each side."""

    def calibrate_range(self, x: Tensor) -> None:
        reach = DEVIATIONS * x.std()
        self.lower.copy_(-reach)
        self.upper.copy_(reach)

    def encode(self, x: Tensor) -> Tensor:
        return 2 * self._level(x) - self.steps

    def grid(self) -> Tensor:
        return torch.arange(-self.steps, self.steps + 1, 2, dtype=torch.int16)


class ActivationBounds(LearnedBounds):
    """Codes 0 .. L; starts at [min, three standard deviations of the normal whose positive half this would be]."""

    def calibrate_range(self, x: Tensor) -> None:
        self.lower.copy_(x.min())
        self.upper.copy_(DEVIATIONS * x.std() / HALF_NORMAL)

    def encode(self, x: Tensor) -> Tensor:
        return self._level(x)

    def grid(self) -> Tensor:
        return torch.arange(self.steps + 1, dtype=torch.int16)

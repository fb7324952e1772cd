r"""EWGS ranges: learned lower and upper bounds, one pair per tensor (or per output channel of a weight).

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

from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.rounding import Rounding

DEVIATIONS = 3.0
# Standard deviation of a half-normal variable relative to the normal it was cut from.
HALF_NORMAL = math.sqrt(1 - 2 / math.pi)


class LearnedBounds(Quantizer):
    """Shared by weights and activations: two learned numbers, `lower` and `upper`."""

    def __init__(self, *, bits: int, rounding: Rounding, shape: tuple[int, ...]) -> None:
        super().__init__(bits=bits, rounding=rounding, shape=shape)
        self.lower = nn.Parameter(torch.zeros(shape))
        self.upper = nn.Parameter(torch.ones(shape))
        # A buffer rather than a constant, so that it lives on the layer's device and follows its dtype.
        self.register_buffer("unit", torch.tensor(1.0 / self.steps), persistent=False)

    def set_bits(self, bits: int) -> None:
        super().set_bits(bits)
        self.get_buffer("unit").fill_(1.0 / self.steps)


class WeightBounds(LearnedBounds):
    """Odd codes -L .. L; starts at three standard deviations on each side."""

    def calibrate_range(self, x: Tensor) -> None:
        reach = DEVIATIONS * self.rows(x).std(dim=1).view(self.shape)
        self.lower.copy_(-reach)
        self.upper.copy_(reach)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * self.level(x, self.lower, self.upper) - self.steps, self.get_buffer("unit")

    def grid(self) -> Tensor:
        return torch.arange(-self.steps, self.steps + 1, 2, dtype=torch.int16)


class ActivationBounds(LearnedBounds):
    """Codes 0 .. L; starts at [min, three standard deviations of the normal whose positive half this would be].

    That takes the values to begin at 0, as they do after ReLU. Where it ends below their mean (pooled features far from
    0, say), the range would be nearly or quite empty, and ends at the maximum instead; the papers' networks have none.
    """

    def calibrate_range(self, x: Tensor) -> None:
        reach = DEVIATIONS * x.std() / HALF_NORMAL
        self.lower.copy_(x.min())
        self.upper.copy_(torch.where(reach > x.mean(), reach, x.max()))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.level(x, self.lower, self.upper), self.get_buffer("unit")

    def grid(self) -> Tensor:
        return torch.arange(self.steps + 1, dtype=torch.int16)

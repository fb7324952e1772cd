r"""EWGS ranges: learned lower and upper bounds, one pair per tensor (or per output channel of a weight).

Paper: Lee, Kim, Ham 2021, "Network Quantization with Element-wise Gradient Scaling", CVPR 2021
(https://arxiv.org/abs/2104.00903), section 3.1. With L = 2**bits - 1 and t = clip((v - l) / (u - l), 0, 1):

    weights       v_q = 2 round(L t) / L - 1   in [-1, 1]   codes -L, -L+2, .. L (odd: no zero)   scale 1 / L
    activations   v_q = round(L t) / L         in [ 0, 1]   codes 0 .. L                         scale 1 / L

The learned output scale of the layer restores the magnitude of the result. The paper's gradient is the rounding rule
`ElementWiseGradientScaling`; any other rule combines with these bounds as well. SQAKD's release carries two more
scalars per layer that no code reads; they are omitted here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sqakd.quantization.quantizers.base import Quantizer, Start, checked_start
from sqakd.quantization.quantizers.rounding import Rounding

DEVIATIONS = 3.0
# Standard deviation of |z| divided by that of z, for a normal variable z of mean 0.
HALF_NORMAL = math.sqrt(1 - 2 / math.pi)


class LearnedBounds(Quantizer):
    """Base of the weight and the activation range: two learned numbers, `lower` and `upper`."""

    range_names = ("lower", "upper")

    def __init__(
        self,
        *,
        bits: int,
        rounding: Rounding | None = None,
        shape: tuple[int, ...] = (),
        start: Start = "paper",
    ) -> None:
        super().__init__(bits=bits, rounding=rounding, shape=shape)
        self.start = checked_start(start)
        self.lower = nn.Parameter(torch.zeros(shape))
        self.upper = nn.Parameter(torch.ones(shape))
        # The scale 1 / L is a buffer rather than a constant, so that it has the layer's device and dtype. It is not
        # saved, because the bits determine it.
        self.register_buffer("unit", torch.tensor(1.0 / self.steps), persistent=False)

    def set_bits(self, bits: int) -> None:
        super().set_bits(bits)
        self.get_buffer("unit").fill_(1.0 / self.steps)

    def restore(self, x: Tensor) -> Tensor:
        """Return the rounded values between `lower` and `upper`; the layer's output scale has this part in training."""
        return self.lower + self.level(x, self.lower, self.upper) * (self.upper - self.lower) / self.steps


class WeightBounds(LearnedBounds):
    """Weight range with odd codes -L .. L; it starts at three standard deviations on each side of 0."""

    def calibrate_range(self, x: Tensor) -> None:
        reach = DEVIATIONS * self.rows(x).std(dim=1).view(self.shape)
        self.lower.copy_(-reach)
        self.upper.copy_(reach)

    def cover(self, x: Tensor, share: float) -> None:
        """Write [-share max|x|, share max|x|]."""
        reach = share * x.abs().flatten(1).amax(dim=1).view(self.shape)
        self.lower.copy_(-reach)
        self.upper.copy_(reach)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # Levels k = 0 .. L are spread over [l, u], and 2 k - L are the odd codes.
        return 2 * self.level(x, self.lower, self.upper) - self.steps, self.get_buffer("unit")

    def grid(self) -> Tensor:
        return torch.arange(-self.steps, self.steps + 1, 2, dtype=torch.int16)


class ActivationBounds(LearnedBounds):
    """Activation range with codes 0 .. L.

    After a ReLU, values are about the positive half of a normal variable. The range starts at

        l = min x,    u = 3 std(x) / sqrt(1 - 2 / pi)

    where the division converts the standard deviation of the half into that of the whole variable. For values far above
    0, such as pooled features, u can lie below their mean and the range would be nearly or quite empty; u = max x is
    used then. The papers' networks have no such layer.
    """

    def calibrate_range(self, x: Tensor) -> None:
        reach = DEVIATIONS * x.std() / HALF_NORMAL
        self.lower.copy_(x.min())
        self.upper.copy_(torch.where(reach > x.mean(), reach, x.max()))

    def cover(self, x: Tensor, share: float) -> None:
        """Write [share min, share max]; without values on both sides of 0, the smallest stays the lower bound."""
        low, high = x.min(), x.max()
        on_both_sides = bool(low < 0 < high)
        self.lower.copy_(share * low if on_both_sides else low)
        self.upper.copy_(share * high if on_both_sides else low + share * (high - low))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.level(x, self.lower, self.upper), self.get_buffer("unit")

    def grid(self) -> Tensor:
        return torch.arange(self.steps + 1, dtype=torch.int16)

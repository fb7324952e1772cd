r"""LSQ: the step size is learned.

Paper: Esser, McKinstry, Bablani, Appuswamy, Modha 2020, "Learned Step Size Quantization", ICLR 2020
(https://arxiv.org/abs/1902.08153), equations 1-3 and section 2.2. With step s, codes Qn .. Qp and N elements per step:

    v_q = s round(clip(v / s, Qn, Qp))
    dv_q / ds = round(v / s) - v / s inside, Qn below, Qp above       times c = 1 / sqrt(N Qp)
    s starts at 2 mean|v| / sqrt(Qp)

Where ours differs: one bit is not in the paper; its codes are {-1, +1} for weights and {0, 1} for activations, with
Qp = 1. SQAKD's release, which is MQBench's LSQ, has signed activations (`signed: true`) and asks the *rounded* value to
lie in the range before a gradient passes (`mask: code`); its steps decay like weights (`decay`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sqakd.quantization.quantizers.integers import IntegerQuantizer, Signed
from sqakd.quantization.quantizers.rounding import Mask, Rounding

SMALLEST_STEP = 2.0**-23


class LearnedStep(IntegerQuantizer):
    """Weights or activations with a learned step, one or one per output channel; `decay` is the step's weight decay."""

    def __init__(
        self, *, bits: int, rounding: Rounding, shape: tuple[int, ...], signed: Signed, mask: Mask, decay: float
    ) -> None:
        super().__init__(bits=bits, rounding=rounding, shape=shape, signed=signed, mask=mask)
        if not decay >= 0:
            raise ValueError(f"decay={decay}: expected a number >= 0")
        self.decay = decay
        self.step = nn.Parameter(torch.ones(shape))

    def calibrate_range(self, x: Tensor) -> None:
        mean = self.rows(x).abs().mean(dim=1).view(self.shape)
        self.step.copy_((2 * mean / math.sqrt(max(self.high, 1))).clamp_min(SMALLEST_STEP))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        step = positive(self.step)
        elements = x.numel() // (self.shape[0] if self.shape else 1)
        step = scale_gradient(step, 1 / math.sqrt(elements * max(self.high, 1)))
        return self.integers(x, 1 / step), step


def positive(step: Tensor) -> Tensor:
    """Magnitude of a step, never below the smallest one (where its gradient still passes)."""
    magnitude = step.abs()
    return magnitude + (magnitude.clamp_min(SMALLEST_STEP) - magnitude).detach()


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """The same value; its gradient is multiplied by `factor`."""
    scaled = x * factor
    return scaled + (x - scaled).detach()

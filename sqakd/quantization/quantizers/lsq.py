r"""LSQ: a learned step size.

Paper: Esser, McKinstry, Bablani, Appuswamy, Modha 2020, "Learned Step Size Quantization", ICLR 2020
(https://arxiv.org/abs/1902.08153), equations 1-3 and section 2.2. With step s, codes Qn .. Qp and N elements per step:

    v_q = s round(clip(v / s, Qn, Qp))
    dv_q / ds = round(v / s) - v / s inside, Qn below, Qp above       times c = 1 / sqrt(N Qp)
    s starts at 2 mean|v| / sqrt(Qp)

Where ours differs: one bit is not in the paper; its codes are {-1, +1} for weights and {0, 1} for activations, with
Qp = 1. For activations, N counts the elements of a batch on one device, as in MQBench. So with k devices, or k batches
accumulated, the step's gradient is sqrt(k) times as large, which Adam undoes and SGD does not. SQAKD's release, which
is MQBench's LSQ, differs from the paper in three points: activations are signed (`signed: true`), the *rounded* value
has to lie in the range for a gradient to pass (`mask: code`), and the steps decay like weights (`decay`). With
`power_of_two`, the forward pass has the step 2^round(log2 s), and s gets its gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sqakd.numbers import check_not_negative
from sqakd.quantization.quantizers.base import Start, checked_start
from sqakd.quantization.quantizers.clip_round import Mask
from sqakd.quantization.quantizers.integers import IntegerQuantizer, Signed
from sqakd.quantization.quantizers.rounding import Rounding

SMALLEST_STEP = 2.0**-23


class LearnedStep(IntegerQuantizer):
    """Weights or activations with a learned step: one per tensor, or one per output channel.

    Args:
        bits: 1 to 8.
        rounding: rounding rule, with its gradient.
        shape: of the step.
        signed: true, false, or "auto".
        mask: "value" as in the paper, "code" as in SQAKD's release.
        decay: weight decay of the step.
        start: where the step starts: "paper", "mse" or "max".
        power_of_two: whether the step is the nearest power of two, for hardware that multiplies by a shift.

    Raises:
        SqakdError: if an argument has another value.

    Example:
        >>> quantizer = LearnedStep(bits=2)
        >>> quantizer.calibrate(torch.tensor([-1.0, 0.2, 1.0]))
        >>> quantizer.grid().tolist()
        [-2, -1, 0, 1]
    """

    range_names = ("step",)

    def __init__(
        self,
        *,
        bits: int,
        rounding: Rounding | None = None,
        shape: tuple[int, ...] = (),
        signed: Signed = "auto",
        mask: Mask = "value",
        decay: float = 0.0,
        start: Start = "paper",
        power_of_two: bool = False,
    ) -> None:
        super().__init__(bits=bits, rounding=rounding, shape=shape, signed=signed, mask=mask)
        self.start = checked_start(start)
        check_not_negative("decay", decay)
        self.decay, self.power_of_two = decay, power_of_two
        self.step = nn.Parameter(torch.ones(shape))

    def calibrate_range(self, x: Tensor) -> None:
        """Start at s = 2 mean|v| / sqrt(Qp)."""
        mean = self.rows(x).abs().mean(dim=1).view(self.shape)
        self._write_step(2 * mean / math.sqrt(self.high))

    def cover(self, x: Tensor, share: float) -> None:
        self._write_step(share * self.reach(x) / self.high, up=share == 1)

    def _write_step(self, step: Tensor, *, up: bool = False) -> None:
        """Write the step; with `power_of_two` the nearest power, or with `up` the next larger one.

        A step that starts at a power itself is as far as possible from the places where the power changes.
        """
        step = step.clamp_min(SMALLEST_STEP)
        if self.power_of_two:
            step = torch.exp2(torch.log2(step).ceil()) if up else nearest_power_of_two(step)
        self.step.copy_(step)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        step = self.scaled_step(x.numel() // (self.shape[0] if self.shape else 1))
        # The rounding differentiates the codes by 1 / step, and the caller multiplies them by `step`: together that is
        # the paper's dv_q / ds.
        return self.integers(x, 1 / step), step

    def scaled_step(self, elements: int) -> Tensor:
        """Return the step as the forward pass uses it, with the gradient that LSQ gives it for N elements."""
        step = positive(self.step)
        if self.power_of_two:
            step = step + (nearest_power_of_two(step) - step).detach()
        # c = 1 / sqrt(N Qp) balances the step's gradient, a sum over N elements, with the gradient of one weight.
        return scale_gradient(step, 1 / math.sqrt(elements * self.high))


def positive(step: Tensor) -> Tensor:
    """Return the magnitude of a step, at least SMALLEST_STEP; the gradient passes there as well."""
    magnitude = step.abs()
    return magnitude + (magnitude.clamp_min(SMALLEST_STEP) - magnitude).detach()


def nearest_power_of_two(x: Tensor) -> Tensor:
    """Return the power of two whose logarithm is nearest to that of each element, all > 0.

    >>> nearest_power_of_two(torch.tensor([0.5, 0.7, 0.71, 3.0])).tolist()
    [0.5, 0.5, 1.0, 4.0]
    """
    return torch.exp2(torch.log2(x).round())


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return `x` unchanged, with its gradient multiplied by `factor`."""
    scaled = x * factor
    return scaled + (x - scaled).detach()

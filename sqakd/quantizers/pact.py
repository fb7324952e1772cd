r"""PACT: activations are clipped at a learned value.

Paper: Choi, Wang, Venkataramani, Chuang, Srinivasan, Gopalakrishnan 2018, "PACT: Parameterized Clipping Activation for
Quantized Neural Networks" (https://arxiv.org/abs/1805.06085), equations 1-3. With n = 2**b - 1:

    y = clip(x, 0, a),   y_q = round(y n / a) a / n,   dy_q / da = 1 where x >= a, else 0

The clip is regularised by an L2 penalty of its own (`decay`). Weights are quantized as in DoReFa. Where ours differs:
inputs with negative values (a network's first image, linear bottlenecks) are clipped on both sides, with steps of
2 a / n. In SQAKD's release the clip is never learned and only sets the step (`learned: false`), and activations are
always signed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sqakd.quantizers.integers import IntegerQuantizer, Signed
from sqakd.quantizers.rounding import Rounding


class ClippedActivation(IntegerQuantizer):
    """Activations clipped at `alpha`.

    Args:
        bits: 1 to 8.
        rounding: how codes are rounded and what gradient that has.
        shape: of the range; () for activations.
        signed: true, false, or "auto".
        alpha: where the clip starts.
        learned: whether it moves; if not, it is a constant that sets the step and nothing is clipped at it.
        decay: weight decay of `alpha`.
    """

    def __init__(
        self,
        *,
        bits: int,
        rounding: Rounding,
        shape: tuple[int, ...],
        signed: Signed,
        alpha: float,
        learned: bool,
        decay: float,
    ) -> None:
        # A clipped value sits on the outermost code, which rounding errors must not put outside.
        super().__init__(bits=bits, rounding=rounding, shape=shape, signed=signed, mask="code")
        if not alpha > 0 or not decay >= 0:
            raise ValueError(f"alpha={alpha} decay={decay}: expected alpha > 0 and decay >= 0")
        self.learned, self.decay = learned, decay if learned else 0.0
        start = torch.full(shape, float(alpha))
        if learned:
            self.alpha = nn.Parameter(start)
        else:
            self.register_buffer("alpha", start)

    def calibrate_range(self, x: Tensor) -> None:
        """Nothing to set: the paper's clip starts at a constant and is learned."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alpha.abs()
        one_bit = self.signed and self.bits == 1  # codes -1 and +1 for -alpha and alpha
        steps = self.steps / 2 if self.signed else self.steps  # codes from 0 to alpha, half a one if signed
        step = (alpha / (1 if one_bit else steps)).detach()
        if self.learned:
            top, bottom = step * self.high, step * self.low
            # Straight from the paper: a clipped value moves with alpha, all others only know their step as a constant.
            share = alpha / alpha.detach()
            x = torch.where(x < top, x, (top * share).to(x.dtype))
            x = torch.where(x > bottom, x, (bottom * share).to(x.dtype))
        return self.integers(x, 1 / step), step

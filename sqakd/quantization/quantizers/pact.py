r"""PACT: activations are clipped at a learned value.

Paper: Choi, Wang, Venkataramani, Chuang, Srinivasan, Gopalakrishnan 2018, "PACT: Parameterized Clipping Activation for
Quantized Neural Networks" (https://arxiv.org/abs/1805.06085), equations 1-3. With n = 2**b - 1:

    y = clip(x, 0, a),   y_q = round(y n / a) a / n,   dy_q / da = 1 where x >= a, else 0

The clip is regularised by an L2 penalty of its own (`decay`). Weights are quantized as in DoReFa. Where ours differs:
the clip starts where the calibration batch is rounded with the least squared error (`alpha: calibrate`) rather than at
a constant, which the learning rate of a range would hardly move it from (with one bit, all inputs below half the clip
are 0: at the customary 6 or 10 nearly all of them are); inputs with negative values (a network's first image, linear
bottlenecks) are clipped on both sides, with steps of 2 a / n. In SQAKD's release the clip is never learned and only
sets the step (`learned: false`), and activations are always signed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sqakd.quantization.quantizers.integers import IntegerQuantizer, Signed
from sqakd.quantization.quantizers.rounding import Rounding

CANDIDATES = 100  # clips that are tried
SAMPLE = 100_000  # elements that are looked at


class ClippedActivation(IntegerQuantizer):
    """Activations clipped at `alpha`.

    Args:
        bits: 1 to 8.
        rounding: how codes are rounded and what gradient that has.
        shape: of the range; () for activations.
        signed: true, false, or "auto".
        alpha: where the clip starts: a number > 0, or "calibrate" for the least squared error on the first batch.
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
        alpha: float | Literal["calibrate"],
        learned: bool,
        decay: float,
    ) -> None:
        # A clipped value sits on the outermost code, which rounding errors must not put outside.
        super().__init__(bits=bits, rounding=rounding, shape=shape, signed=signed, mask="code")
        self.needs_spread = alpha == "calibrate"
        if not self.needs_spread and not (isinstance(alpha, int | float) and alpha > 0):
            raise ValueError(f"alpha={alpha!r}: expected a number > 0, or calibrate")
        if not isinstance(learned, bool):
            raise ValueError(f"learned={learned!r}: expected true or false")
        if not decay >= 0:
            raise ValueError(f"decay={decay}: expected a number >= 0")
        self.learned, self.decay = learned, decay if learned else 0.0
        start = torch.full(shape, 1.0 if self.needs_spread else float(alpha))
        if learned:
            self.alpha = nn.Parameter(start)
        else:
            self.register_buffer("alpha", start)

    def calibrate_range(self, x: Tensor) -> None:
        """Try clips up to the largest magnitude; a constant start is left as it is."""
        if not self.needs_spread:
            return
        sample = self.rows(x)[:, :: max(1, x.numel() // SAMPLE)]
        reach = sample.abs().amax(dim=1)
        best = torch.full_like(reach, float("inf"))
        chosen = self.alpha.clone()
        for share in torch.linspace(1 / CANDIDATES, 1, CANDIDATES).tolist():
            self.alpha.copy_((reach * share).view(self.shape))
            error = (self(sample) - sample).square().mean(dim=1)
            chosen = torch.where((error < best).view(self.shape), self.alpha, chosen)
            best = torch.minimum(error, best)
        self.alpha.copy_(chosen)

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

r"""PACT: activations clipped at a learned value.

Paper: Choi, Wang, Venkataramani, Chuang, Srinivasan, Gopalakrishnan 2018, "PACT: Parameterized Clipping Activation for
Quantized Neural Networks" (https://arxiv.org/abs/1805.06085), equations 1-3. With n = 2**b - 1:

    y = clip(x, 0, a),   y_q = round(y n / a) a / n,   dy_q / da = 1 where x >= a, else 0

The clip a is regularised by an L2 penalty of its own (`decay`). Weights are quantized as in DoReFa.

Where ours differs:
- a starts at the value that rounds the calibration batch with the least squared error (`alpha: calibrate`) instead of a
  constant. The learning rate of ranges hardly moves a constant, and with one bit all inputs below a / 2 become 0, which
  at the customary 6 or 10 is nearly all of them.
- Inputs with negative values (a network's first image, linear bottlenecks) get steps of 2 a / n and the codes of two's
  complement, so they are clipped at -a (n + 1) / n and a (n - 1) / n; with one bit at -a and a.

In SQAKD's release the clip is never learned and only sets the step (`learned: false`), and activations are always
signed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.numbers import check_not_negative
from sqakd.quantization.quantizers.base import Start, checked_start
from sqakd.quantization.quantizers.integers import IntegerQuantizer, Signed
from sqakd.quantization.quantizers.rounding import Rounding


class ClippedActivation(IntegerQuantizer):
    """Activations clipped at `alpha`.

    Args:
        bits: 1 to 8.
        rounding: rounding rule, with its gradient.
        shape: of the range; () for activations.
        signed: true, false, or "auto".
        alpha: start of the clip: a number > 0, or "calibrate" for the least squared error on the calibration batch.
        learned: whether `alpha` is trained. If not, it is a constant that sets the step, and values are clipped only by
            the outermost codes.
        decay: weight decay of `alpha`.
        start: "paper" starts where `alpha` says; "mse" or "max" start there instead.

    Raises:
        SqakdError: if an argument has another value.
    """

    range_names = ("alpha",)

    def __init__(
        self,
        *,
        bits: int,
        rounding: Rounding | None = None,
        shape: tuple[int, ...] = (),
        signed: Signed = "auto",
        alpha: float | Literal["calibrate"] = "calibrate",
        learned: bool = True,
        decay: float = 0.0,
        start: Start = "paper",
    ) -> None:
        # A clipped value sits on the outermost code. A mask on the value could exclude it by one rounding error.
        super().__init__(bits=bits, rounding=rounding, shape=shape, signed=signed, mask="code")
        self.start = checked_start(start)
        self.constant = alpha != "calibrate"
        self.needs_spread = not self.constant or start != "paper"
        if self.constant and not (isinstance(alpha, int | float) and alpha > 0):
            raise SqakdError(f"alpha={alpha!r}: expected a number > 0, or calibrate")
        if not isinstance(learned, bool):
            raise SqakdError(f"learned={learned!r}: expected true or false")
        check_not_negative("decay", decay)
        self.learned, self.decay = learned, decay if learned else 0.0
        clip = torch.full(shape, float(alpha) if self.constant else 1.0)
        if learned:
            self.alpha = nn.Parameter(clip)
        else:
            self.register_buffer("alpha", clip)

    def calibrate_range(self, x: Tensor) -> None:
        """Choose the clip with the least squared rounding error; a constant clip is kept."""
        if not self.constant:
            self.search_range(x, keep_present=False)

    def cover(self, x: Tensor, share: float) -> None:
        self.alpha.copy_(self.reach(x) * share)

    def observed(self, x: Tensor) -> Tensor:
        """Return `x` clipped at alpha."""
        alpha = self.alpha.detach().abs()
        return torch.clamp(x, -alpha, alpha)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alpha.abs()
        one_bit = self.signed and self.bits == 1  # codes -1 and +1 for -alpha and alpha
        # n steps span [0, alpha], or [-alpha, alpha] if signed, which leaves n / 2 of them for [0, alpha].
        steps = self.steps / 2 if self.signed else self.steps
        # The derivative by alpha is 0 inside the range (equation 3), so the step counts as a constant.
        step = (alpha / (1 if one_bit else steps)).detach()
        if self.learned:
            # A clipped value moves with alpha: `top * share` equals `top` in the forward pass (share is exactly 1), and
            # its derivative by alpha is top / alpha, which is 1 for the unsigned range.
            top, bottom = step * self.high, step * self.low
            share = alpha / alpha.detach()
            # NaN is compared so that it stays NaN, which stops the training.
            x = torch.where(x >= top, (top * share).to(x.dtype), x)
            x = torch.where(x <= bottom, (bottom * share).to(x.dtype), x)
        return self.integers(x, 1 / step), step

r"""DoReFa: weights squeezed by tanh, activations clipped to [0, 1].

Paper: Zhou, Wu, Ni, Zhou, Wen, Zou 2016, "DoReFa-Net" (https://arxiv.org/abs/1606.06160), equations 7-11. With
n = 2**b - 1 and q(t) = round(n t) / n:

    weights       w_q = 2 q(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1            codes -n, -n + 2 .. n, scale 1 / n
    one bit       w_q = sign(w) mean|w|, the gradient passes unchanged       codes -1, +1
    activations   x_q = q(clip(x, 0, 1))                                     codes 0 .. n, scale 1 / n

Weights lose their magnitude, which the following batch norm restores. SQAKD's release, which is MQBench's, differs from
the paper for both tensors: it rounds tanh(x) / (max|tanh(x)| + 1e-5) on a two's complement grid whose step is frozen
after one batch (`TanhRange`). For activations the maximum is that of the current batch, so a prediction depends on the
other images of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.integers import IntegerQuantizer, Signed
from sqakd.quantization.quantizers.rounding import Rounding

EPSILON = 1e-5


def real(x: Tensor) -> torch.dtype:
    """Return the precision in which a range is computed: at least single."""
    return torch.promote_types(x.dtype, torch.float32)


def tanh_normalise(rows: Tensor, epsilon: float) -> Tensor:
    """Return tanh(x) / (max|tanh(x)| + epsilon) with the maximum over each row; the maximum is differentiated."""
    squeezed = rows.to(real(rows)).tanh()
    return squeezed / (squeezed.abs().amax(dim=1, keepdim=True) + epsilon)


class TanhWeights(Quantizer):
    """The paper's weights. The range has no state; it is computed from the weights in every step."""

    def calibrate_range(self, x: Tensor) -> None:
        """Set nothing."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.bits == 1:
            return self._sign(x)
        # Equation 9: tanh and the maximum map the weights to [0, 1], where q rounds with n codes per unit.
        unit = (tanh_normalise(self.rows(x), 0.0) / 2 + 0.5).view_as(x)
        level = self.rounding(unit, None, unit.new_full((), self.steps), 0, self.steps)
        return (2 * level - self.steps).to(x.dtype), unit.new_full((), 1 / self.steps)

    def _sign(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes of one bit (equation 8): sign(w) with scale m = mean|w|, which counts as a constant."""
        values = x.to(real(x))
        magnitude = self.rows(values).abs().mean(dim=1).view(self.shape).detach()
        # The paper's gradient passes everywhere, but a rounding rule stops it outside its range. Values are therefore
        # clipped to [-m, m] for the rule only, as v + constant: the rule sees the clipped value, and the gradient is 1.
        clipped = values + (torch.minimum(torch.maximum(values, -magnitude), magnitude) - values).detach()
        # Levels 0 and 1 at -m and m are 2 m apart, so the density is 1 / (2 m). The mask asks for the code, because a
        # clipped value may lie one rounding error outside.
        level = self.rounding(clipped, -magnitude, 0.5 / magnitude, 0, 1, "code")
        return (2 * level - 1).to(x.dtype), magnitude

    def grid(self) -> Tensor:
        return torch.arange(-self.steps, self.steps + 1, 2, dtype=torch.int16)


class UnitActivations(IntegerQuantizer):
    """The paper's activations, clipped to [0, 1]; to [-1, 1] if the input has a sign."""

    needs_spread = False

    def __init__(
        self,
        *,
        bits: int,
        rounding: Rounding | None = None,
        shape: tuple[int, ...] = (),
        signed: Signed = "auto",
    ) -> None:
        super().__init__(bits=bits, rounding=rounding, shape=shape, signed=signed, mask="value")

    def calibrate_range(self, x: Tensor) -> None:
        """Set nothing: the range is constant."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # The highest code represents 1.0, so it is also the number of codes per unit.
        density = x.new_full((), self.high, dtype=real(x))
        return self.integers(x, density), 1 / density


class TanhRange(IntegerQuantizer):
    """Weights or activations as released: divided by the largest tanh, then rounded with a frozen step.

    With t = tanh(x) / (max|tanh(x)| + 1e-5) and M = max|t| of the calibration batch (about 1), the step is
    2 M / (2**b - 1), or M with one bit.
    """

    def __init__(self, *, bits: int, rounding: Rounding | None = None, shape: tuple[int, ...] = ()) -> None:
        super().__init__(bits=bits, rounding=rounding, shape=shape, signed=True, mask="code")
        self.register_buffer("step", torch.ones(shape))

    def calibrate_range(self, x: Tensor) -> None:
        reach = tanh_normalise(self.rows(x), EPSILON).abs().amax(dim=1).view(self.shape)
        self.get_buffer("step").copy_(reach if self.bits == 1 else 2 * reach / self.steps)

    def unrounded(self, x: Tensor) -> Tensor:
        return tanh_normalise(self.rows(x), EPSILON).view_as(x)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        step = self.get_buffer("step")
        codes = self.integers(self.unrounded(x), 1 / step)
        return codes.to(x.dtype), step

r"""DoReFa: weights squeezed by tanh, activations clipped to [0, 1].

Paper: Zhou, Wu, Ni, Zhou, Wen, Zou 2016, "DoReFa-Net" (https://arxiv.org/abs/1606.06160), equations 7-11. With
n = 2**b - 1 and q(t) = round(n t) / n:

    weights       w_q = 2 q(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1            codes -n, -n + 2 .. n, scale 1 / n
    one bit       w_q = sign(w) mean|w|, the gradient passes unchanged       codes -1, +1
    activations   x_q = q(clip(x, 0, 1))                                     codes 0 .. n, scale 1 / n

Weights lose their magnitude; the batch norm that follows gives it back. SQAKD's release, which is MQBench's, does
something else for both: x / (max|tanh| + 1e-5) of tanh(x), on a two's complement grid whose step is frozen after one
batch (`TanhRange`). For activations that maximum is the current batch's, so a prediction depends on its neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.integers import IntegerQuantizer, Signed
from sqakd.quantization.quantizers.rounding import Rounding

EPSILON = 1e-5


def real(x: Tensor) -> torch.dtype:
    """The precision in which a range is computed: at least single."""
    return torch.promote_types(x.dtype, torch.float32)


def tanh_normalise(rows: Tensor, epsilon: float) -> Tensor:
    """tanh(x) / (max|tanh(x)| + epsilon) along dimension 1; the maximum is differentiated."""
    squeezed = rows.to(real(rows)).tanh()
    return squeezed / (squeezed.abs().amax(dim=1, keepdim=True) + epsilon)


class TanhWeights(Quantizer):
    """The paper's weights; nothing is learned or kept, the range follows the weights."""

    def calibrate_range(self, x: Tensor) -> None:
        """Nothing to set."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.bits == 1:
            return self._sign(x)
        unit = (tanh_normalise(self.rows(x), 0.0) / 2 + 0.5).view_as(x)
        level = self.rounding(unit, None, unit.new_full((), self.steps), 0, self.steps)
        return (2 * level - self.steps).to(x.dtype), unit.new_full((), 1 / self.steps)

    def _sign(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = x.to(real(x))
        magnitude = self.rows(values).abs().mean(dim=1).view(self.shape).detach()
        # Clipped for the rounding rule only: the gradient passes everywhere, also beyond mean|w|.
        clipped = values + (torch.minimum(torch.maximum(values, -magnitude), magnitude) - values).detach()
        level = self.rounding(clipped, -magnitude, 0.5 / magnitude, 0, 1, "code")
        return (2 * level - 1).to(x.dtype), magnitude

    def grid(self) -> Tensor:
        return torch.arange(-self.steps, self.steps + 1, 2, dtype=torch.int16)


class UnitActivations(IntegerQuantizer):
    """The paper's activations, clipped to [0, 1]; to [-1, 1] where the input has a sign."""

    needs_spread = False

    def __init__(self, *, bits: int, rounding: Rounding, shape: tuple[int, ...], signed: Signed) -> None:
        super().__init__(bits=bits, rounding=rounding, shape=shape, signed=signed, mask="value")

    def calibrate_range(self, x: Tensor) -> None:
        """Nothing to set."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        density = x.new_full((), self.high, dtype=real(x))
        return self.integers(x, density), 1 / density


class TanhRange(IntegerQuantizer):
    """As released: weights or activations normalised by tanh and maximum, then a frozen step on a signed grid."""

    def __init__(self, *, bits: int, rounding: Rounding, shape: tuple[int, ...]) -> None:
        super().__init__(bits=bits, rounding=rounding, shape=shape, signed=True, mask="code")
        self.register_buffer("step", torch.ones(shape))

    def calibrate_range(self, x: Tensor) -> None:
        reach = tanh_normalise(self.rows(x), EPSILON).abs().amax(dim=1).view(self.shape)
        self.get_buffer("step").copy_(reach if self.bits == 1 else 2 * reach / self.steps)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        step = self.get_buffer("step")
        codes = self.integers(tanh_normalise(self.rows(x), EPSILON).view_as(x), 1 / step)
        return codes.to(x.dtype), step

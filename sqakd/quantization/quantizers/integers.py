"""Base of the methods with a zero on their grid: integers low .. high, signed where the input has a sign."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sqakd.errors import SqakdError
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.clip_round import Mask
from sqakd.quantization.quantizers.rounding import Rounding

Signed = bool | Literal["auto"]


class IntegerQuantizer(Quantizer):
    """A quantizer with codes 0 .. 2**b - 1, or two's complement -2**(b-1) .. 2**(b-1) - 1 for signed tensors.

    With one bit, two's complement would be {-1, 0}. Signed tensors get {-1, +1} instead.

    Args:
        bits: 1 to 8.
        rounding: rounding rule, with its gradient.
        shape: of the range.
        signed: whether values have a sign; "auto" decides by the calibration batch: signed if it has a negative value.
        mask: which elements' gradient passes at the ends of the range, see `sqakd.quantization.quantizers.rounding`.

    Raises:
        SqakdError: if an argument has another value.
    """

    def __init__(
        self,
        *,
        bits: int,
        rounding: Rounding | None = None,
        shape: tuple[int, ...] = (),
        signed: Signed = "auto",
        mask: Mask = "value",
    ) -> None:
        super().__init__(bits=bits, rounding=rounding, shape=shape)
        if signed not in (True, False, "auto"):
            raise SqakdError(f"signed={signed!r}: expected true, false or auto")
        if mask not in ("value", "code"):
            raise SqakdError(f"mask={mask!r}: expected value or code")
        self.detect, self.signed, self.mask = signed == "auto", signed is True, mask

    def calibrate(self, x: Tensor) -> None:
        if self.detect and not self.calibrated:
            self.signed = bool((x < 0).any())
        super().calibrate(x)

    @property
    def low(self) -> int:
        """The lowest code."""
        if not self.signed:
            return 0
        return -1 if self.bits == 1 else -(2 ** (self.bits - 1))

    @property
    def high(self) -> int:
        """The highest code."""
        if not self.signed:
            return self.steps
        return 1 if self.bits == 1 else 2 ** (self.bits - 1) - 1

    @property
    def largest_code(self) -> int:
        return max(-self.low, self.high)

    def integers(self, x: Tensor, density: Tensor) -> Tensor:
        """Return codes low .. high of `x`; `density` is the number of codes per unit, 1 / scale."""
        if self.signed and self.bits == 1:
            # Codes -1 and +1 are two apart. Levels 0 and 1 over [-scale, scale] have the same threshold, 0.
            one = 1 / density
            return 2 * self.level(x, -one, one) - 1
        codes: Tensor = self.rounding(x, None, density, self.low, self.high, self.mask)
        return codes

    def reach(self, x: Tensor) -> Tensor:
        """Return the largest magnitude of each row of `x`, in the shape of the range."""
        return x.abs().flatten(1).amax(dim=1).view(self.shape)

    def grid(self) -> Tensor:
        return torch.arange(self.low, self.high + 1, self.high - self.low if self.bits == 1 else 1, dtype=torch.int16)

    def get_extra_state(self) -> Tensor:
        """Return whether the tensor is signed, as a tensor, because checkpoints hold plain data only."""
        return torch.tensor(self.signed)

    def set_extra_state(self, state: Tensor) -> None:
        self.signed = bool(state)

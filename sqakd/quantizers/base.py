"""What every quantizer promises, whatever its method.

A quantizer owns a *range* (how a tensor maps to the codes) and a *rounding* rule (what gradient the rounding has); both
are free to combine. Values on the grid are integers times a scale:

    value = scale * code,    code an integer,    scale > 0

Layers convolve the codes and apply the scale once, to the output: integers up to 256 are exact in bfloat16, real
values are not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sqakd.quantizers.rounding import Rounding

MAX_BITS = 8


class Codes(NamedTuple):
    """Integers of a quantized tensor; the real values are `scale * (integers - zero_point)`.

    Attributes:
        integers: int16, the shape of the quantized tensor.
        scale: one number, or one per output channel [C, 1, ...].
        zero_point: the integer that stands for 0.0.
    """

    integers: Tensor
    scale: Tensor
    zero_point: int


class Quantizer(nn.Module, ABC):
    """Maps a tensor to the grid of `2**bits` values.

    A method implements `calibrate_range`, `encode` and `scale`. Everything that `encode` and `scale` read is a
    Parameter or a buffer from birth, so a strict state-dict round trip restores the same outputs.

    Args:
        bits: 1 to 8.
        rounding: how codes are rounded and what gradient that has.

    Raises:
        ValueError: if `bits` is not a whole number from 1 to 8.
    """

    calibrated: Tensor

    def __init__(self, *, bits: int, rounding: Rounding) -> None:
        super().__init__()
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
            raise ValueError(
                f"bits={bits!r}: expected a whole number from 1 to {MAX_BITS} (bits, not levels: 2 bits are 4 levels);"
                f" type for instance bits=2, or quantizer=none for the float network"
            )
        self.bits = bits
        self.rounding = rounding
        self.register_buffer("calibrated", torch.tensor(False))

    @property
    def steps(self) -> int:
        """Distance between the lowest and the highest code, in grid points: 2**bits - 1."""
        return int(2**self.bits - 1)

    def calibrate(self, x: Tensor) -> None:
        """Set the range from one tensor, once; later calls are errors because they would undo training.

        Args:
            x: a typical tensor (the weight itself, or one batch of activations).
        """
        if self.calibrated:
            raise RuntimeError("this quantizer is already calibrated; load a float network to start again")
        if x.numel() < 2 or not bool(torch.isfinite(x).all()):
            raise ValueError(f"cannot calibrate on a tensor of shape {tuple(x.shape)} with non-finite or single values")
        with torch.no_grad():
            self.calibrate_range(x.detach())
            self.calibrated.fill_(True)

    @abstractmethod
    def calibrate_range(self, x: Tensor) -> None:
        """Write the range's parameters and buffers in place."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Integer codes as a real tensor of the shape and dtype of `x`, with the method's gradient."""

    @abstractmethod
    def scale(self) -> Tensor:
        """Value of one code: one number, or one per output channel [C, 1, ...]; differentiable where learned."""

    @abstractmethod
    def grid(self) -> Tensor:
        """All codes in ascending order, [2**bits] int16."""

    def forward(self, x: Tensor) -> Tensor:
        """Values on the grid, in the shape of `x`."""
        return self.encode(x) * self.scale()

    @torch.no_grad()
    def codes(self, x: Tensor) -> Codes:
        """The integers of `x`, with what turns them into values; used by statistics and export."""
        return Codes(self.encode(x).to(torch.int16), self.scale().detach(), 0)

    def extra_repr(self) -> str:
        return f"bits={self.bits}"

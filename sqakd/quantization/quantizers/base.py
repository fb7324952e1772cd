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

from sqakd.quantization.quantizers.rounding import Rounding

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

    A method implements `calibrate_range`, `encode` and `grid`. Everything that `encode` reads is a Parameter or a
    buffer from birth (or extra state), so a strict state-dict round trip restores the same outputs.

    Args:
        bits: 1 to 8.
        rounding: how codes are rounded and what gradient that has.
        shape: of the range: () for one per tensor, [C, 1, ...] for one per output channel of a weight.

    Raises:
        ValueError: if `bits` is not a whole number from 1 to 8.
    """

    calibrated: Tensor
    # Weight decay of the range's own parameters; the recipe's is for the network's.
    decay: float = 0.0
    # Whether the range comes from the batch's own values; a constant range takes also a batch of equal values.
    needs_spread: bool = True

    def __init__(self, *, bits: int, rounding: Rounding, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.bits = _checked(bits)
        self.rounding = rounding
        self.shape = shape
        self.register_buffer("calibrated", torch.tensor(False))

    @property
    def steps(self) -> int:
        """Distance between the lowest and the highest code, in grid points: 2**bits - 1."""
        return int(2**self.bits - 1)

    def set_bits(self, bits: int) -> None:
        """Change to another number of bits; the range stays, and may no longer suit."""
        self.bits = _checked(bits)

    def calibrate(self, x: Tensor) -> None:
        """Set the range from one tensor, once; later calls are errors because they would undo training.

        Args:
            x: a typical tensor (the weight itself, or one batch of activations).
        """
        if self.calibrated:
            raise RuntimeError("this quantizer is already calibrated; load a float network to start again")
        finite = x.numel() > 0 and bool(torch.isfinite(x).all())
        if not finite or (self.needs_spread and bool(x.min() == x.max())):
            raise ValueError(f"cannot calibrate on a tensor of shape {tuple(x.shape)}: expected varied, finite values")
        with torch.no_grad():
            self.calibrate_range(x.detach())
            if not bool(torch.isfinite(self(x)).all()):
                raise ValueError(
                    f"cannot calibrate on a tensor of shape {tuple(x.shape)}: a channel has no range, perhaps"
                    f" because its values are all zero; type quantizer.per_channel=false for one range per layer"
                )
            self.calibrated.fill_(True)

    @abstractmethod
    def calibrate_range(self, x: Tensor) -> None:
        """Write the range's parameters and buffers in place."""

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and the value of one code, with the method's gradient.

        Returns:
            Integers as a real tensor of the shape and dtype of `x`; and the scale, one number > 0 or one per output
            channel [C, 1, ...].
        """

    @abstractmethod
    def grid(self) -> Tensor:
        """All codes in ascending order, [2**bits] int16."""

    def forward(self, x: Tensor) -> Tensor:
        """Values on the grid, in the shape of `x`."""
        codes, scale = self.encode(x)
        return codes * scale

    @torch.no_grad()
    def codes(self, x: Tensor) -> Codes:
        """The integers of `x`, with what turns them into values; used by statistics and export."""
        codes, scale = self.encode(x)
        return Codes(codes.to(torch.int16), scale, 0)

    def rows(self, x: Tensor) -> Tensor:
        """`x` with one row for each number of the range: [C, elements per channel], or [1, elements]."""
        return x.reshape(self.shape[0] if self.shape else 1, -1)

    def level(self, x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """Codes 0 .. steps of `x`, spread evenly over [lower, upper]."""
        levels: Tensor = self.rounding(x, lower, self.steps / (upper - lower), 0, self.steps)
        return levels

    def extra_repr(self) -> str:
        return f"bits={self.bits}" + (f", channels={self.shape[0]}" if self.shape else "")


def _checked(bits: int) -> int:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
        raise ValueError(
            f"bits={bits!r}: expected a whole number from 1 to {MAX_BITS} (bits, not levels: 2 bits are 4 levels);"
            f" type for instance bits=2, or quantizer=none for the float network"
        )
    return bits

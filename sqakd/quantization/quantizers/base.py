"""The contract of every quantizer.

A quantizer owns a *range* (the map from a tensor to the codes) and a *rounding rule* (the gradient of the rounding).
Any range combines with any rounding rule. The values on the grid are integers times a scale:

    value = scale * code,    code an integer,    scale > 0

Layers convolve the codes and apply the scale once, to the output: integers up to 256 are exact in bfloat16, real
values are not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.numbers import is_whole
from sqakd.quantization.quantizers.rounding import Rounding

MAX_BITS = 8


class Codes(NamedTuple):
    """Integers of a quantized tensor; the real values are `scale * (integers - zero_point)`.

    Attributes:
        integers: int16, the shape of the quantized tensor.
        scale: one number, or one per output channel [C, 1, ...].
        zero_point: the integer that represents 0.0.
    """

    integers: Tensor
    scale: Tensor
    zero_point: int


class Quantizer(nn.Module, ABC):
    """Base of all quantizers: maps a tensor to a grid of `2**bits` values.

    A method implements `calibrate_range`, `encode` and `grid`. Everything that `encode` reads is a Parameter or a
    buffer from the constructor on (or extra state), so a strict state-dict round trip restores the same outputs.

    Args:
        bits: 1 to 8.
        rounding: rounding rule, with its gradient.
        shape: of the range: () for one per tensor, [C, 1, ...] for one per output channel of a weight.

    Raises:
        SqakdError: if `bits` is not a whole number from 1 to 8.
    """

    calibrated: Tensor
    # Weight decay of the range's own parameters; the recipe's weight decay is for the network.
    decay: float = 0.0
    # Whether the range is computed from the values of the batch. If not, a batch of equal values is accepted as well.
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
        """Change the number of bits and keep the range, which may no longer suit."""
        self.bits = _checked(bits)

    def calibrate(self, x: Tensor) -> None:
        """Set the range from one tensor, once.

        Args:
            x: a typical tensor (the weight itself, or one batch of activations).

        Raises:
            SqakdError: if the tensor is empty, not finite or constant, or one of its channels has no range.
            RuntimeError: if the quantizer is calibrated already, because a second calibration would undo training.
        """
        if self.calibrated:
            raise RuntimeError("this quantizer is already calibrated; load a float network to start again")
        finite = x.numel() > 0 and bool(torch.isfinite(x).all())
        if not finite or (self.needs_spread and bool(x.min() == x.max())):
            raise SqakdError(f"cannot calibrate on a tensor of shape {tuple(x.shape)}: expected varied, finite values")
        with torch.no_grad():
            self.calibrate_range(x.detach())
            # A range of width 0 gives a scale of 0 or infinity, which shows as NaN or infinity in the output.
            if not bool(torch.isfinite(self(x)).all()):
                raise SqakdError(
                    f"cannot calibrate on a tensor of shape {tuple(x.shape)}: a channel has no range, perhaps because"
                    f" its values are all zero",
                    topic="calibration.empty_channel",
                )
            self.calibrated.fill_(True)

    @abstractmethod
    def calibrate_range(self, x: Tensor) -> None:
        """Write the range's parameters and buffers in place."""

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes and the value of one code, with the method's gradient.

        Returns:
            Integers as a real tensor of the shape and dtype of `x`; and the scale, one number > 0 or one per output
            channel [C, 1, ...].
        """

    @abstractmethod
    def grid(self) -> Tensor:
        """Return all codes in ascending order, [2**bits] int16."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the grid value of each element of `x`."""
        codes, scale = self.encode(x)
        return codes * scale

    @torch.no_grad()
    def codes(self, x: Tensor) -> Codes:
        """Return the integers of `x` with their scale and zero point; statistics and export use them."""
        codes, scale = self.encode(x)
        return Codes(codes.to(torch.int16), scale, 0)

    def unrounded(self, x: Tensor) -> Tensor:
        """Return `x` as it would be represented with an unlimited number of codes."""
        return x

    def observed(self, x: Tensor) -> Tensor:
        """Return `x` as a network that calibrates in float passes it on (`outer=released`)."""
        return self.unrounded(x)

    def rows(self, x: Tensor) -> Tensor:
        """Reshape `x` to one row for each number of the range: [C, elements per channel], or [1, elements]."""
        return x.reshape(self.shape[0] if self.shape else 1, -1)

    def level(self, x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """Return codes 0 .. steps of `x`, spread evenly over [lower, upper]."""
        levels: Tensor = self.rounding(x, lower, self.steps / (upper - lower), 0, self.steps)
        return levels

    def extra_repr(self) -> str:
        return f"bits={self.bits}" + (f", channels={self.shape[0]}" if self.shape else "")


def _checked(bits: int) -> int:
    """Return `bits` if they are a whole number from 1 to MAX_BITS."""
    if not is_whole(bits) or not 1 <= bits <= MAX_BITS:
        raise SqakdError(
            f"bits={bits!r}: expected a whole number from 1 to {MAX_BITS} (bits, not levels: 2 bits are 4 levels)",
            topic="quantizer.bits",
        )
    return bits

"""The contract of every quantizer.

A quantizer owns a *range* (the map from a tensor to the codes) and a *rounding rule* (the gradient of the rounding).
Any range combines with any rounding rule. The values on the grid are integers times a scale:

    value = scale * code,    code an integer,    scale > 0

Layers convolve the codes and apply the scale once, to the output: integers up to 256 are exact in bfloat16, real
values are not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.numbers import MAX_BITS, is_bits
from sqakd.quantization.quantizers.rounding import Rounding, StraightThrough

# Where a range starts: by the rule of the method's paper, at the least squared rounding error, or at the largest value.
Start = Literal["paper", "mse", "max"]
STARTS: tuple[Start, ...] = get_args(Start)
CANDIDATES = 100  # number of ranges to try
SAMPLE = 100_000  # number of elements of one range to try them on, about


class Codes(NamedTuple):
    """Integers of a quantized tensor; the real values are `scale * (integers - zero_point)`.

    Attributes:
        integers: int16, the shape of the quantized tensor.
        scale: one number, or one per output channel [C, 1, ...].
        zero_point: the integer that represents 0.0: 0, because all grids here are multiples of their scale.
    """

    integers: Tensor
    scale: Tensor
    zero_point: int


class Quantizer(nn.Module, ABC):
    """Base of all quantizers: maps a tensor to a grid of `2**bits` values.

    A method implements `calibrate_range`, `encode` and `grid`. Everything that `encode` reads is a Parameter or a
    buffer from the constructor on (or extra state), so a strict state-dict round trip restores the same outputs. A
    method that offers another start than that of its paper also implements `cover` and names its `range_names`. One
    whose largest code is not `2**bits - 1` overrides `largest_code`.

    Args:
        bits: 1 to 8.
        rounding: rounding rule, with its gradient; None: straight-through.
        shape: of the range: () for one per tensor, [C, 1, ...] for one per output channel of a weight.

    Raises:
        SqakdError: if `bits` is not a whole number from 1 to 8.
    """

    calibrated: Tensor
    # Weight decay of the range's own parameters; the recipe's weight decay is for the network.
    decay: float = 0.0
    # Whether the range is computed from the values of the batch. If not, a batch of equal values is accepted as well.
    needs_spread: bool = True
    # Names of the parameters and buffers that hold the range and that `cover` writes; none: the range is not chosen.
    range_names: tuple[str, ...] = ()
    # Where the range starts: "paper", "mse" (the least squared rounding error on the calibration tensor) or "max" (the
    # range covers the largest value). A method with a choice sets it with `checked_start`.
    start: Start = "paper"

    def __init__(self, *, bits: int, rounding: Rounding | None = None, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.bits = _checked(bits)
        self.rounding: Rounding = StraightThrough() if rounding is None else rounding
        self.shape = shape
        self.register_buffer("calibrated", torch.tensor(False))

    @property
    def steps(self) -> int:
        """Distance between the lowest and the highest code, in grid points: 2**bits - 1."""
        return int(2**self.bits - 1)

    @property
    def largest_code(self) -> int:
        """The largest magnitude of a code on the grid: 2**bits - 1 unless a method has another grid."""
        return self.steps

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
            self._start_range(x.detach())
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
        """Write the range's parameters and buffers in place, by the rule of the method's paper."""

    def cover(self, x: Tensor, share: float) -> None:
        """Write a range that covers a share of the extent of `x`; 1 covers all values.

        Args:
            x: values in the form of `as_rows`.
            share: above 0, at most 1.
        """
        raise NotImplementedError

    def restore(self, x: Tensor) -> Tensor:
        """Return the rounded values of `x` in the unit of `x`; a method with outputs of another unit converts them."""
        values: Tensor = self(x)
        return values

    def _start_range(self, x: Tensor) -> None:
        """Write the range where `start` says."""
        if self.start == "max":
            self.cover(self.as_rows(x), 1.0)
            return
        self.calibrate_range(x)
        if self.start == "mse":
            self.search_range(x)

    def search_range(self, x: Tensor, *, keep_present: bool = True) -> None:
        """Write the range with the least squared rounding error, one per tensor or one per channel.

        The candidates cover 1/100, 2/100 .. 1 of the extent. Each candidate is one more pass over the elements, so
        large tensors are sampled at regular distances.

        Args:
            x: the calibration tensor.
            keep_present: whether the present range is a candidate as well.
        """
        rows = self.as_rows(x)
        sample = rows[:, :: max(1, rows.shape[1] // SAMPLE)]
        ranges: list[Tensor] = [getattr(self, name) for name in self.range_names]
        chosen = [tensor.clone() for tensor in ranges]
        best = self._squared_error(sample) if keep_present else x.new_full(self.shape, float("inf"))
        for share in torch.linspace(1 / CANDIDATES, 1, CANDIDATES).tolist():
            self.cover(sample, share)
            error = self._squared_error(sample)
            better = error < best
            chosen = [torch.where(better, new, old) for new, old in zip(ranges, chosen, strict=True)]
            best = torch.where(better, error, best)
        for tensor, value in zip(ranges, chosen, strict=True):
            tensor.copy_(value)

    def _squared_error(self, rows: Tensor) -> Tensor:
        """Return the mean squared rounding error of each row, in the shape of the range; infinite if it is empty."""
        error = (self.restore(rows) - rows).square().flatten(1).mean(dim=1).view(self.shape)
        return torch.nan_to_num(error, nan=torch.inf, posinf=torch.inf)

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

    def as_rows(self, x: Tensor) -> Tensor:
        """Return `rows` with the number of dimensions of a per-channel range: [C, elements, 1, ...]."""
        rows = self.rows(x)
        return rows.reshape(*rows.shape, *[1] * max(0, len(self.shape) - 2))

    def level(self, x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """Return codes 0 .. steps of `x`, spread evenly over [lower, upper]."""
        levels: Tensor = self.rounding(x, lower, self.steps / (upper - lower), 0, self.steps)
        return levels

    def extra_repr(self) -> str:
        return f"bits={self.bits}" + (f", channels={self.shape[0]}" if self.shape else "")


def checked_start(start: str) -> Start:
    """Return a start of a range if it is one.

    Raises:
        SqakdError: if it is another text.
    """
    if start not in STARTS:
        raise SqakdError(f"start={start!r}: expected paper, mse or max")
    return start


def _checked(bits: int) -> int:
    """Return `bits` if they are a whole number from 1 to MAX_BITS."""
    if not is_bits(bits):
        raise SqakdError(
            f"bits={bits!r}: expected a whole number from 1 to {MAX_BITS} (bits, not levels: 2 bits are 4 levels)",
            topic="quantizer.bits",
        )
    return bits

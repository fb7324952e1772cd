r"""A quantizer as integers: what a convolution on codes needs to know, read off the quantizer itself.

    weights    w_q = scale * W                    W whole numbers, scale one number or one per output channel
    inputs     x_q = scale * (u - zero_point)     u = gap * level,   level = clip(round((x - origin) / step) + shift)

The stored integers u start at 0; zero_point is the u of code 0, which is also what a convolution pads with. Where the
grid holds every integer, gap is 1; the odd grids -n, -n + 2 .. n have gap 2.

Nothing here repeats a method's formula: an input quantizer is a staircase, and the places of its stairs are found by
bisection on `encode` in float64. A new quantizer therefore has its integers without another line, and they cannot
disagree with what was trained. A quantizer that is no evenly spaced staircase is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sqakd.export.errors import ExportError
from sqakd.quantization.quantizers.base import Quantizer

FARTHEST = 2.0**100
BISECTIONS = 160
UNEVEN = 1e-5  # largest deviation of a stair from its place, in steps
NEARLY_ZERO = 1e-9
SINGLE_PRECISION = 2.0**-24
INT8_LOW, INT8_HIGH, UINT8_HIGH = -128, 127, 255


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """An input quantizer as integers; see the module's text for the equations.

    Attributes:
        bits: of the quantizer.
        origin: value that rounds to level `shift`.
        step: distance of two levels.
        shift: added after rounding.
        levels: the highest level; the lowest is 0.
        gap: distance of two codes.
        zero_point: the stored integer of code 0.
        scale: value of one code.
    """

    bits: int
    origin: float
    step: float
    shift: int
    levels: int
    gap: int
    zero_point: int
    scale: float

    def level(self, x: Tensor) -> Tensor:
        """Levels 0 .. `levels` of real values, in the precision of `x`."""
        return (((x - self.origin) / self.step).round() + self.shift).clamp(0, self.levels)

    def stored(self, x: Tensor) -> Tensor:
        """Stored integers of real values, uint8."""
        return (self.gap * self.level(x)).to(torch.uint8)

    def codes(self, x: Tensor) -> Tensor:
        """Codes, as the quantizer's own `codes` gives them, in the precision of `x`."""
        return self.gap * self.level(x) - self.zero_point

    def value(self, level: Tensor) -> Tensor:
        """Real values well inside each level; those of two levels lie as far apart as single precision can tell."""
        width = max(self.step, self.scale) if self.levels == 1 else self.step
        middle = self.origin + (self.levels / 2 - self.shift) * self.step
        return middle + (level - self.levels / 2) * width

    @property
    def code_range(self) -> tuple[int, int]:
        """The lowest and the highest code."""
        return -self.zero_point, self.gap * self.levels - self.zero_point


@dataclass(frozen=True, kw_only=True)
class WeightSpec:
    """A quantized weight as integers.

    Attributes:
        bits: of the quantizer.
        integers: int16, the weight's shape.
        scale: value of one, per output channel, float64 [C].
        grid: the integers that may occur, ascending, int16.
        error: relative error of a regridded weight; 0 where the integers are the trained ones.
    """

    bits: int
    integers: Tensor
    scale: Tensor
    grid: Tensor
    error: float = 0.0


@torch.no_grad()
def input_spec(quantizer: Quantizer) -> InputSpec:
    """The integers of a calibrated input quantizer.

    Raises:
        ExportError: if its codes are no evenly spaced staircase of each value alone, or do not fit 8 bits.
    """
    _check_independent(quantizer)
    reach = torch.tensor([-FARTHEST, FARTHEST], dtype=torch.float64)
    low, high = (int(code) for code in _encode(quantizer, reach))
    grid = quantizer.grid()
    grid = grid[(grid >= low) & (grid <= high)].to(torch.int64)
    if len(grid) < 2 or int(grid[0]) != low or int(grid[-1]) != high:
        raise ExportError(f"{_name(quantizer)} does not reach the codes it says it has; its input cannot be exported")
    gaps = grid.diff()
    gap, levels = int(gaps[0]), len(grid) - 1
    if not bool((gaps == gap).all()):
        raise ExportError(f"{_name(quantizer)} has codes at unequal distances; only evenly spaced ones can be exported")
    if gap * levels > UINT8_HIGH:
        raise ExportError(
            f"{_name(quantizer)} has {levels + 1} input codes from {low} to {high}, which do not fit 8 bits; train with"
            f" a_bits=7, or with a quantizer whose grid holds a zero, e.g. quantizer=lsq"
        )
    scale = float(quantizer.encode(torch.zeros(1))[1])
    stairs = _stairs(quantizer, grid)
    _decide_zero(quantizer, stairs, grid, SINGLE_PRECISION * scale)
    shift = -low if gap == 1 and low <= 0 <= high else 0
    # With one stair any step serves; this one makes the origin 0 where it can be.
    step = float(stairs[-1] - stairs[0]) / (levels - 1) if levels > 1 else 2 * abs(float(stairs[0]))
    origin = float(stairs[0]) - (0.5 - shift) * step
    if abs(origin) <= NEARLY_ZERO * step:
        origin = 0.0
    places = origin + (torch.arange(levels, dtype=torch.float64) + 0.5 - shift) * step
    if step <= 0 or float((places - stairs).abs().max()) > UNEVEN * step:
        raise ExportError(f"{_name(quantizer)} has stairs of unequal width; only evenly spaced ones can be exported")
    return InputSpec(
        bits=quantizer.bits,
        origin=origin,
        step=step,
        shift=shift,
        levels=levels,
        gap=gap,
        zero_point=-low,
        scale=scale,
    )


@torch.no_grad()
def weight_spec(quantizer: Quantizer, weight: Tensor, *, regrid: bool) -> WeightSpec:
    """The integers of a weight.

    Args:
        quantizer: the weight's.
        weight: [C, ...].
        regrid: whether integers that do not fit int8 are rounded to ones that do.

    Raises:
        ExportError: if the integers do not fit int8 and `regrid` is not set.
    """
    codes = quantizer.codes(weight)
    integers = codes.integers - codes.zero_point
    grid = quantizer.grid() - codes.zero_point
    scale = codes.scale.detach().double().flatten().expand(weight.shape[0])
    if int(grid[0]) >= INT8_LOW and int(grid[-1]) <= INT8_HIGH:
        return WeightSpec(bits=quantizer.bits, integers=integers, scale=scale, grid=grid)
    if not regrid:
        raise ExportError(
            f"{_name(quantizer)} has weights on {len(grid)} whole numbers from {int(grid[0])} to {int(grid[-1])}, which"
            f" do not fit 8-bit integers; type regrid=true to round them to -{INT8_HIGH} .. {INT8_HIGH} (about one"
            f" percent of error, reported), or train with w_bits=7 or quantizer=lsq"
        )
    largest = integers.reshape(len(integers), -1).abs().amax(dim=1).clamp_min(1).double()
    per_channel = (-1, *[1] * (weight.ndim - 1))
    factor = INT8_HIGH / largest
    rounded = (integers.double() * factor.view(per_channel)).round()
    error = (rounded / factor.view(per_channel) - integers).square().sum() / integers.double().square().sum()
    return WeightSpec(
        bits=quantizer.bits,
        integers=rounded.to(torch.int16),
        scale=scale / factor,
        grid=torch.arange(-INT8_HIGH, INT8_HIGH + 1, dtype=torch.int16),
        error=float(error.sqrt()),
    )


def _encode(quantizer: Quantizer, x: Tensor) -> Tensor:
    codes: Tensor = quantizer.encode(x)[0]
    return codes.round().to(torch.int64)


def _check_independent(quantizer: Quantizer) -> None:
    """A value's code must not change with its neighbours in the batch."""
    unit = torch.linspace(-1, 1, 33, dtype=torch.float64) + 0.0137  # no value on a stair, where rounding may decide
    independent = True
    for size in (0.01, 0.1, 1.0, 10.0):
        alone = _encode(quantizer, size * unit)
        together = _encode(quantizer, torch.cat([size * unit, 64 * size * unit]))[: len(unit)]
        single = torch.cat([_encode(quantizer, value[None]) for value in size * unit[::8]])
        independent &= torch.equal(alone, together) and torch.equal(single, alone[::8])
    if not independent:
        raise ExportError(
            f"{_name(quantizer)} normalises its input by the batch it comes in, so a prediction depends on its"
            f" neighbours and no fixed integers stand for it; train with quantizer=dorefa (the paper's) instead"
        )


def _stairs(quantizer: Quantizer, grid: Tensor) -> Tensor:
    """The smallest value with at least each code but the first, float64 [codes - 1]."""
    wanted = grid[1:]
    low = torch.full((len(wanted),), -FARTHEST, dtype=torch.float64)
    high = -low
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = _encode(quantizer, middle) >= wanted
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return high


def _decide_zero(quantizer: Quantizer, stairs: Tensor, grid: Tensor, hair: float) -> None:
    """Move a stair at 0 a hair up or down, to where single precision has it: values behind a ReLU are often 0."""
    scale = quantizer.encode(torch.zeros(1))[1]
    above = _encode(quantizer, torch.zeros(64, dtype=scale.dtype))[0] >= grid[1:]
    at_zero = stairs.abs() < hair
    stairs[at_zero] = torch.where(above[at_zero], -hair, hair).double()


def _name(quantizer: Quantizer) -> str:
    return f"{type(quantizer).__name__} at {quantizer.bits} bits"

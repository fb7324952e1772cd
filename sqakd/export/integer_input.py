r"""A quantized input as integers: an evenly spaced staircase that is read off the quantizer itself.

    x_q = scale * (u - zero_point),     u = gap * level,     level = clip(round((x - origin) / step) + shift)

The integers u start at 0. zero_point is the u of code 0, which is also what a convolution pads with. The gap is 1 where
the grid holds every integer between its ends, and 2 for the odd grids -n, -n + 2 .. n.

No formula of a method is repeated here. An input quantizer is a staircase: its code rises with its input, one stair per
code. The positions of the stairs are found by bisection on the quantizer's own `encode` in float64. A new quantizer
therefore exports without another line of code, and the export cannot disagree with the training. A quantizer that is
not an evenly spaced staircase is refused.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from sqakd.export.errors import ExportError
from sqakd.quantization.quantizers.base import Quantizer

FARTHEST = 2.0**100  # beyond every stair of a trained quantizer
BISECTIONS = 160  # halvings of the interval -2**100 .. 2**100; 153 reach the spacing of float64 around 1
UNEVEN = 1e-5  # largest deviation of a stair from its place on an even staircase, in steps
NEARLY_ZERO = 1e-9  # an origin below this share of a step is a rounding error of the bisection
SINGLE_PRECISION = 2.0**-24  # half the spacing of float32 around 1
UINT8_HIGH = 255


@dataclass(frozen=True, kw_only=True)
class IntegerInput:
    """An input quantizer as integers; the module's docstring has the equations.

    Attributes:
        bits: bits of the quantizer.
        origin: real value that rounds to level `shift`.
        step: distance between two stairs, in real values.
        shift: added after rounding.
        levels: the highest level; the lowest is 0.
        gap: distance between two codes.
        zero_point: the integer u of code 0.
        scale: real value of code 1.
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
        """Return the levels 0 .. `levels` of real values, in the precision of `x`."""
        return (((x - self.origin) / self.step).round() + self.shift).clamp(0, self.levels)

    def stored(self, x: Tensor) -> Tensor:
        """Return the integers u of real values, uint8."""
        return (self.gap * self.level(x)).to(torch.uint8)

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of real values, equal to the quantizer's own `codes`, in the precision of `x`."""
        return self.gap * self.level(x) - self.zero_point

    def value(self, level: Tensor) -> Tensor:
        """Return a real value well inside each level, so that no rounding error moves it to another level.

        The values of two levels are at least a step apart. With a single stair the step is arbitrary and may be too
        narrow for float32, so the scale is the distance if it is larger.
        """
        width = max(self.step, self.scale) if self.levels == 1 else self.step
        middle = self.origin + (self.levels / 2 - self.shift) * self.step
        return middle + (level - self.levels / 2) * width

    @property
    def code_range(self) -> tuple[int, int]:
        """The lowest and the highest code."""
        return -self.zero_point, self.gap * self.levels - self.zero_point


@torch.no_grad()
def integer_input(quantizer: Quantizer) -> IntegerInput:
    """Return the integers of a calibrated input quantizer.

    Raises:
        ExportError: if a value's code depends on other values, if the codes are not an evenly spaced staircase, or if
            they do not fit 8 bits.
    """
    _check_independent(quantizer)
    grid = _reached_grid(quantizer)
    low, high, levels = int(grid[0]), int(grid[-1]), len(grid) - 1
    gap = _gap(quantizer, grid)
    precise = copy.deepcopy(quantizer).double()  # what it computes from its range is not rounded to float32 either
    scale = float(precise.encode(torch.zeros(1, dtype=torch.float64))[1])
    stairs = _stairs(precise, grid)
    _decide_zero(quantizer, stairs, grid, SINGLE_PRECISION * scale)
    # A grid of consecutive integers around 0 rounds x / step directly, with the origin near 0; other grids count from
    # their lowest level.
    shift = -low if gap == 1 and low <= 0 <= high else 0
    # A single stair is right with any step. This step makes the origin 0 where that is possible.
    step = float(stairs[-1] - stairs[0]) / (levels - 1) if levels > 1 else 2 * abs(float(stairs[0]))
    # Stair number j (from 0) lies between the levels j and j + 1, at origin + (j + 1/2 - shift) * step.
    origin = float(stairs[0]) - (0.5 - shift) * step
    if abs(origin) <= NEARLY_ZERO * step:
        origin = 0.0  # saves a subtraction in the exported file
    places = origin + (torch.arange(levels, dtype=torch.float64) + 0.5 - shift) * step
    if step <= 0 or float((places - stairs).abs().max()) > UNEVEN * step:
        raise ExportError(f"{_name(quantizer)} has stairs of unequal width; only evenly spaced ones can be exported")
    return IntegerInput(
        bits=quantizer.bits,
        origin=origin,
        step=step,
        shift=shift,
        levels=levels,
        gap=gap,
        zero_point=-low,
        scale=scale,
    )


def unsigned_8_bits(low: float, high: float) -> IntegerInput:
    """Return the 256 integers that cover low .. high, 0 included, for an input that was float in training."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max(high - low, 1e-12) / UINT8_HIGH
    zero = round(-low / step)
    return IntegerInput(
        bits=8, origin=0.0, step=step, shift=zero, levels=UINT8_HIGH, gap=1, zero_point=zero, scale=step
    )


def _encode(quantizer: Quantizer, x: Tensor) -> Tensor:
    codes: Tensor = quantizer.encode(x)[0]
    return codes.round().to(torch.int64)


def _check_independent(quantizer: Quantizer) -> None:
    """Refuse a quantizer in which a value's code changes with the other values of the batch."""
    unit = torch.linspace(-1, 1, 33, dtype=torch.float64) + 0.0137  # off the stairs, where a rounding error may decide
    independent = True
    for size in (0.01, 0.1, 1.0, 10.0):
        # The same values among each other, beside far larger ones, and each on its own.
        alone = _encode(quantizer, size * unit)
        together = _encode(quantizer, torch.cat([size * unit, 64 * size * unit]))[: len(unit)]
        single = torch.cat([_encode(quantizer, value[None]) for value in size * unit[::8]])
        independent &= torch.equal(alone, together) and torch.equal(single, alone[::8])
    if not independent:
        raise ExportError(
            f"{_name(quantizer)} normalises its input by the batch, so that a prediction depends on the other images of"
            f" the batch and no fixed integers exist",
            topic="export.depends_on_batch",
        )


def _reached_grid(quantizer: Quantizer) -> Tensor:
    """Return the codes that inputs reach, ascending, int64; the quantizer's own grid may have more at its ends."""
    reach = torch.tensor([-FARTHEST, FARTHEST], dtype=torch.float64)
    low, high = (int(code) for code in _encode(quantizer, reach))
    grid = quantizer.grid()
    grid = grid[(grid >= low) & (grid <= high)].to(torch.int64)
    if len(grid) < 2 or int(grid[0]) != low or int(grid[-1]) != high:
        raise ExportError(f"{_name(quantizer)} does not reach the codes of its own grid; its input cannot be exported")
    return grid


def _gap(quantizer: Quantizer, grid: Tensor) -> int:
    """Return the distance between two codes, equal for all, and check that the integers fit uint8."""
    gaps = grid.diff()
    gap = int(gaps[0])
    if not bool((gaps == gap).all()):
        raise ExportError(f"{_name(quantizer)} has codes at unequal distances; only evenly spaced ones can be exported")
    if int(grid[-1] - grid[0]) > UINT8_HIGH:
        raise ExportError(
            f"{_name(quantizer)} has {len(grid)} input codes from {int(grid[0])} to {int(grid[-1])}, which do not fit 8"
            f" bits",
            topic="export.input_needs_nine_bits",
        )
    return gap


def _stairs(quantizer: Quantizer, grid: Tensor) -> Tensor:
    """Return the smallest value with at least each code but the first, float64 [codes - 1]."""
    wanted = grid[1:]
    low = torch.full((len(wanted),), -FARTHEST, dtype=torch.float64)
    high = -low
    # All stairs are searched together: each interval low .. high always contains its stair, and halves.
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = _encode(quantizer, middle) >= wanted
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return high


def _decide_zero(quantizer: Quantizer, stairs: Tensor, grid: Tensor, hair: float) -> None:
    """Move a stair at 0 up or down by `hair`, to the side on which training had it.

    Values behind a ReLU are often exactly 0, so the stair must not depend on float64 where training used float32.
    """
    scale = quantizer.encode(torch.zeros(1))[1]
    above = _encode(quantizer, torch.zeros(64, dtype=scale.dtype))[0] >= grid[1:]
    at_zero = stairs.abs() < hair
    stairs[at_zero] = torch.where(above[at_zero], -hair, hair).double()


def _name(quantizer: Quantizer) -> str:
    return f"{type(quantizer).__name__} at {quantizer.bits} bits"

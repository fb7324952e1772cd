r"""Staircases in an accumulator: where a channel's level rises, in the reference and in a runtime.

A level never falls as the accumulator rises (weights are signed so that a channel's scale is positive). A channel is
therefore described completely by its stairs: for each level, the smallest accumulator that reaches at least this level.
A tensor of stairs is int64 [C, levels]. Comparing stairs replaces walking through all accumulators, of which a channel
has up to millions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqakd.export.integer_input import IntegerInput

ACCUMULATOR = 2**31 - 1  # largest int32


def reachable_sums(weight: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest accumulator of each channel over all inputs, int64 [C] each.

    Args:
        weight: whole numbers [C, ...].
        low: lowest input code; padding has code 0, so the range is extended to 0 if needed.
        high: highest input code.
    """
    rows = weight.reshape(len(weight), -1).long()
    # The extreme sum takes each product at its own extreme, which lies at one end of the range of codes.
    ends = torch.stack([rows * min(low, 0), rows * max(high, 0)])
    return ends.amin(dim=0).sum(dim=1), ends.amax(dim=0).sum(dim=1)


def reference_stairs(unit: Tensor, offset: Tensor, output: IntegerInput, levels: Tensor) -> Tensor:
    """Return the smallest accumulator that reaches each level, for y = unit * acc + offset in float64.

    Args:
        unit: real value of one accumulator unit, > 0, float64 [C].
        offset: real value of accumulator 0, float64 [C].
        output: staircase of the next layer's input.
        levels: levels in question, ascending [levels].
    """
    # Solve unit * acc + offset = value for acc, where `value` is the stair in real values.
    value = (levels.double() - output.shift - 0.5) * output.step + output.origin
    at = ((value - offset[:, None]) / unit[:, None]).ceil().clamp(-float(ACCUMULATOR), float(ACCUMULATOR))
    # The division may be off by one unit, and a quotient of exactly one half rounds to even. So each stair is checked
    # with the reference itself, and moved to the first accumulator that reaches the level.
    for _ in range(2):
        below = _level(unit[:, None] * (at - 1) + offset[:, None], output) >= levels
        at = torch.where(below, at - 1, at)
        short = _level(unit[:, None] * at + offset[:, None], output) < levels
        at = torch.where(short, at + 1, at)
    return at.long()


def runtime_edges(factor: Tensor, rounded: Tensor) -> Tensor:
    """Return the smallest whole P with round(float32(P) * factor) >= each value of `rounded`.

    The search is a bisection on the runtime's own float32 arithmetic, which is monotone in P. It therefore includes
    every rounding error: the conversion of P to float32, the product, and ties that round to even.

    Args:
        factor: float32 [C], > 0.
        rounded: whole numbers, ascending [levels].

    Returns:
        int64 [C, levels].
    """
    low = torch.full((len(factor), len(rounded)), -ACCUMULATOR - 1)
    high = torch.full_like(low, ACCUMULATOR)
    for _ in range(33):  # the interval has less than 2**32 whole numbers
        middle = torch.div(low + high, 2, rounding_mode="floor")
        reached = (middle.float() * factor[:, None]).round() >= rounded
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return high


def within(stairs: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """Move stairs outside the reachable accumulators to their ends; highest + 1 means "never reached"."""
    return stairs.clamp(lowest[:, None], highest[:, None] + 1)


def count_differing(a: Tensor, b: Tensor) -> Tensor:
    """Return how many accumulators get different levels from two staircases [C, levels]; int64 [C].

    Between a level's stair in `a` and its stair in `b`, the two staircases differ. The intervals of successive levels
    may overlap, and an accumulator counts once: each interval starts where the one before it ended, or later.
    """
    if a.shape[1] == 0:
        return torch.zeros(len(a), dtype=torch.long)
    start, end = torch.minimum(a, b), torch.maximum(a, b)
    counted = torch.cat([start[:, :1], end[:, :-1]], dim=1)
    return (end - torch.maximum(start, counted)).clamp_min(0).sum(dim=1)


def _level(y: Tensor, output: IntegerInput) -> Tensor:
    """Return the level of a real value, not clipped."""
    return ((y - output.origin) / output.step).round() + output.shift

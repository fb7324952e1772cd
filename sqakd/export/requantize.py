r"""From accumulators straight to the next layer's levels, with integers only; and the proof that this is right.

A convolution's sum acc (a whole number) becomes, by scale, bias and batch norm, the value y = s acc + o, and the next
quantizer makes y a level. Runtimes compute that level from one integer and one factor:

    reference     level(acc) = clip(round((s acc + o - origin) / step) + shift)             float64
    runtime       level(acc) = clip(round(M (k acc + b)) + shift)    M float32, k and b whole numbers

Both are staircases in acc. With k = 1 the bias is a whole number of accumulator units, which at two bits is the
signal itself. The weights are therefore stored k times as large, k = 127 // max|W|, as int8 has room for, and each
channel's b is the one of all candidates within half a k whose stairs stand where the reference's stand.

The certificate counts, over every accumulator that any input can produce, how many get another level. Staircases
need not be walked for that: the smallest P with float32(float32(P) M) above each rounding edge is found by bisection
on the runtime's own arithmetic, which is monotone; stair j then stands at ceil((P_j - b) / k).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sqakd.export.errors import ExportError
from sqakd.export.spec import INT8_HIGH, InputSpec

ACCUMULATOR = 2**31 - 1
LARGEST_BIAS = 2**23  # as a float32 that is divided by its scale again, it stays this whole number


@dataclass(frozen=True)
class Requantized:
    """A convolution that gives the next layer's levels.

    Attributes:
        weight: int8, k * sign * the trained integers.
        weight_scale: float32 [C]; negative where the value falls as the sum of the stored integers rises.
        bias: int64 [C], in units of input scale * weight scale.
        head_room: k.
        wrong: accumulators whose level differs from the reference, [C].
        reachable: accumulators that any input can produce, [C].
        stairs: smallest sign * sum of trained integers with at least each level of the reference, [C, levels].
        sign: 1 where the stored integers have the trained ones' sign, -1 where the other, 0 in constant channels, [C].
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor
    head_room: int
    wrong: Tensor
    reachable: Tensor
    stairs: Tensor
    sign: Tensor


def reachable_sums(weight: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Lowest and highest sum of each channel over all inputs with codes low .. high; padding is code 0.

    Args:
        weight: whole numbers [C, ...].
        low: lowest code, or 0 if that is lower.
        high: highest code.
    """
    rows = weight.reshape(len(weight), -1).long()
    ends = torch.stack([rows * min(low, 0), rows * max(high, 0)])
    return ends.amin(dim=0).sum(dim=1), ends.amax(dim=0).sum(dim=1)


@torch.no_grad()
def requantize(
    weight: Tensor,
    *,
    scale: Tensor,
    offset: Tensor,
    input: InputSpec,
    output: InputSpec,
    low: int,
    high: int,
    search: bool = True,
    head_room: bool = True,
    flip: bool = False,
) -> Requantized:
    """Solve for head-room, scales and biases of one convolution, and count what they get wrong.

    Args:
        weight: whole numbers [C, ...].
        scale: value of one accumulator unit after everything that was folded, float64 [C]; may be negative or 0.
        offset: value of accumulator 0, float64 [C].
        input: of the convolution's input.
        output: of the next layer's input.
        low: lowest level that the output has (higher than 0 after a ReLU that cuts above the lowest).
        high: highest level.
        search: whether to choose each bias by its stairs; else it is rounded.
        head_room: whether to use the room that int8 has; else k = 1.
        flip: whether channels with a negative scale get the other sign in their integers (where 8 bits have it), as
            runtimes need that refuse negative scales; else the integers stay the trained ones, which pack better.
    """
    sign = torch.where(scale < 0, -1, 1)
    per_channel = (-1, *[1] * (weight.ndim - 1))
    integers = weight.long() * sign.view(per_channel)
    k = max(1, INT8_HIGH // max(1, int(integers.abs().max()))) if head_room else 1
    unit, offset = scale.double().abs(), offset.double()
    bottom, top = reachable_sums(integers, *input.code_range)
    levels = torch.arange(low + 1, high + 1)
    reference = _inside(_reference_stairs(unit, offset, output, levels), bottom, top)
    # Where the channel's swing is lost beside its bias, it is the constant in its middle.
    constant = (offset - output.origin).abs() * k >= LARGEST_BIAS * unit
    middle = torch.where(constant, offset + unit * (bottom + top) / 2, offset)
    integers = torch.where(constant.view(per_channel), 0, integers)
    rest = (middle - output.origin).abs().clamp_min(output.step) / 2**16  # a unit in which it is a moderate number
    unit = torch.where(constant, rest * k, unit)
    weight_scale = (unit / (input.scale * k)).float()
    unit_single = torch.tensor(input.scale, dtype=torch.float32) * weight_scale
    wanted = (middle - output.origin) / unit_single.double()
    if int((k * torch.maximum(bottom.abs(), top.abs()) + wanted.abs().ceil().long()).max()) > ACCUMULATOR:
        raise ExportError("a layer's sums do not fit 32-bit integers; its weights or inputs need fewer bits")
    edges = _edges(unit_single / torch.tensor(output.step, dtype=torch.float32), levels - output.shift)
    around = torch.arange(-(k // 2) - 1, k // 2 + 2) if search else torch.zeros(1, dtype=torch.long)
    bias, wrong = _best_bias(wanted.round().long()[:, None] + around, edges, reference, k, constant, bottom, top)
    weights = k * integers
    fits = (weights <= INT8_HIGH).flatten(1).all(dim=1) if flip else torch.zeros(len(sign), dtype=torch.bool)
    mirrored = torch.where(fits, 1, sign)  # -1: the trained integers and a negative scale
    return Requantized(
        weight=(weights * mirrored.view(per_channel)).to(torch.int8),
        weight_scale=weight_scale * mirrored,
        bias=bias * mirrored,
        head_room=k,
        wrong=wrong,
        reachable=top - bottom + 1,
        stairs=reference,
        sign=torch.where(constant, 0, sign * mirrored),
    )


def _level(y: Tensor, output: InputSpec) -> Tensor:
    return ((y - output.origin) / output.step).round() + output.shift


def _reference_stairs(unit: Tensor, offset: Tensor, output: InputSpec, levels: Tensor) -> Tensor:
    """Smallest accumulator with at least each level, int64 [C, levels]."""
    value = (levels.double() - output.shift - 0.5) * output.step + output.origin
    at = ((value - offset[:, None]) / unit[:, None]).ceil().clamp(-float(ACCUMULATOR), float(ACCUMULATOR))
    for _ in range(2):  # the division may be off by one unit, and an exact half rounds to even
        below = _level(unit[:, None] * (at - 1) + offset[:, None], output) >= levels
        at = torch.where(below, at - 1, at)
        short = _level(unit[:, None] * at + offset[:, None], output) < levels
        at = torch.where(short, at + 1, at)
    return at.long()


def _edges(factor: Tensor, rounded: Tensor) -> Tensor:
    """Smallest whole P for which round(float32(P) * factor) >= `rounded`, int64 [C, levels]."""
    low = torch.full((len(factor), len(rounded)), -ACCUMULATOR - 1)
    high = torch.full_like(low, ACCUMULATOR)
    for _ in range(33):
        middle = torch.div(low + high, 2, rounding_mode="floor")
        reached = (middle.float() * factor[:, None]).round() >= rounded
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return high


def _best_bias(
    candidates: Tensor, edges: Tensor, reference: Tensor, k: int, constant: Tensor, bottom: Tensor, top: Tensor
) -> tuple[Tensor, Tensor]:
    """Of each channel's candidates [C, n] the middle one of those with the fewest wrong accumulators; their number."""
    counts = []
    for bias in candidates.T:
        stairs = -torch.div(bias[:, None] - edges, k, rounding_mode="floor")  # ceil((P - b) / k)
        level = torch.where(bias[:, None] >= edges, bottom[:, None], top[:, None] + 1)
        counts.append(_differing(_inside(torch.where(constant[:, None], level, stairs), bottom, top), reference))
    wrong = torch.stack(counts, dim=1)
    least = wrong.amin(dim=1)
    good = wrong == least[:, None]
    position = torch.arange(candidates.shape[1]).expand_as(candidates)
    middle = (position * good).sum(dim=1, keepdim=True) / good.sum(dim=1, keepdim=True)
    chosen = torch.where(good, (position - middle).abs(), float("inf")).argmin(dim=1)
    return candidates.gather(1, chosen[:, None])[:, 0], least


def _inside(stairs: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
    return stairs.clamp(bottom[:, None], top[:, None] + 1)


def _differing(a: Tensor, b: Tensor) -> Tensor:
    """Number of places where two staircases differ in height, from where each reaches its levels [C, levels]."""
    if a.shape[1] == 0:
        return torch.zeros(len(a), dtype=torch.long)
    start, end = torch.minimum(a, b), torch.maximum(a, b)
    seen = torch.cat([start[:, :1], end[:, :-1]], dim=1)
    return (end - torch.maximum(start, seen)).clamp_min(0).sum(dim=1)

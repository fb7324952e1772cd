r"""Requantization: from an accumulator to the next layer's level with integers only, and the proof that this is right.

A convolution's accumulator acc becomes the real value y = s * acc + o (scale, bias and batch norm), and the next
layer's quantizer turns y into a level. Runtimes compute that level from one whole number and one factor per channel:

    reference     level(acc) = clip(round((s acc + o - origin) / step) + shift)             float64
    runtime       level(acc) = clip(round(M (k acc + b)) + shift)                           M float32, k and b whole

Both are staircases in acc (see `sqakd.export.staircase`).

Why k: with k = 1 the bias b is rounded to a whole accumulator unit, and at two bits one unit is as large as the signal
itself. So the weights are stored k times as large, k = floor(127 / max |W|), which int8 has room for, or less where
products with large inputs would saturate (`StoredInput.largest_weight`). b then counts in units that are k times finer.

Why a search: rounding b to the nearest whole number is not always best, because M is rounded to float32 too. All
candidates within half a k of the exact bias are tried, and the one whose stairs agree best with the reference wins.
Where even that one leaves wrong levels, M is changed together with b (`sqakd.export.slope`).

The certificate counts, over every accumulator that any input can produce, how many get another level. Let P be the
smallest whole number whose product with M reaches a level. The runtime's stair is where k acc + b first reaches P, that
is acc = ceil((P - b) / k). So two staircases of a few stairs are compared, instead of millions of accumulators.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sqakd.export.errors import ExportError
from sqakd.export.integer_input import IntegerInput
from sqakd.export.integer_weight import INT8_HIGH, head_room, per_channel
from sqakd.export.slope import best_slope
from sqakd.export.staircase import (
    ACCUMULATOR,
    count_differing,
    reachable_sums,
    reference_stairs,
    runtime_edges,
    within,
)

# The file stores bias * unit in float32. Below this size, dividing by the unit gives back the same whole number.
LARGEST_BIAS = 2**23


@dataclass(frozen=True)
class Requantization:
    """The stored numbers of a convolution that writes the next layer's levels, with their certificate.

    Attributes:
        weight: int8, k * sign * the trained integers.
        weight_scale: float32 [C]; negative where the real value falls as the sum of the stored integers rises.
        bias: int64 [C], in units of input scale * weight scale.
        head_room: the factor k of the stored integers.
        wrong: number of accumulators whose level differs from the reference, [C].
        reachable: number of accumulators that any input can produce, [C].
        stairs: smallest sign * accumulator of the trained integers with at least each level, [C, levels].
        sign: 1 where the stored integers have the trained ones' sign, -1 where they have the opposite sign, 0 in
            constant channels, [C].
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor
    head_room: int
    wrong: Tensor
    reachable: Tensor
    stairs: Tensor
    sign: Tensor


@torch.no_grad()
def solve_requantization(
    weight: Tensor,
    *,
    scale: Tensor,
    offset: Tensor,
    input: IntegerInput,
    output: IntegerInput,
    low: int,
    high: int,
    search: bool = True,
    largest_weight: int = INT8_HIGH,
    positive_scales: bool = False,
) -> Requantization:
    """Choose head-room, scales and biases of one convolution, and count the accumulators that get a wrong level.

    Args:
        weight: whole numbers [C, ...].
        scale: real value of one accumulator unit, everything folded in, float64 [C]; may be negative or 0.
        offset: real value of accumulator 0, float64 [C].
        input: integers of the convolution's input.
        output: integers of the next layer's input.
        low: lowest level of the output; above 0 behind a ReLU that cuts the lowest levels off.
        high: highest level of the output.
        search: whether each bias is chosen by its stairs; otherwise it is rounded to the nearest whole number.
        largest_weight: largest size of the stored integers if k is above 1; with 0, k = 1.
        positive_scales: whether channels with a negative scale are stored with the opposite sign (where int8 has it),
            for runtimes that refuse negative scales. Otherwise they keep the trained integers, which pack better.

    Raises:
        ExportError: if an accumulator may overflow 32 bits.
    """
    # From here to the end the integers are signed so that every scale is positive and every staircase rises.
    sign = torch.where(scale < 0, -1, 1)
    shape = per_channel(weight)
    integers = weight.long() * sign.view(shape)
    k = head_room(integers, largest_weight)
    unit, offset = scale.double().abs(), offset.double()
    lowest, highest = reachable_sums(integers, *input.code_range)
    levels = torch.arange(low + 1, high + 1)
    reference = within(reference_stairs(unit, offset, output, levels), lowest, highest)

    # A channel whose bias exceeds its swing by far would need a bias that float32 cannot hold. Its output is replaced
    # by the constant in the middle of the swing. A channel that batch norm switched off (scale 0) is such a channel.
    constant = (offset - output.origin).abs() * k >= LARGEST_BIAS * unit
    middle = torch.where(constant, offset + unit * (lowest + highest) / 2, offset)
    integers = torch.where(constant.view(shape), 0, integers)
    # A constant channel has no unit of its own. In this one, its bias is a whole number of about 2**16.
    rest = (middle - output.origin).abs().clamp_min(output.step) / 2**16
    unit = torch.where(constant, rest * k, unit)

    # From here on the numbers are those of the file: one accumulator unit is input scale * weight scale, in float32.
    weight_scale = (unit / (input.scale * k)).float()
    stored_unit = torch.tensor(input.scale, dtype=torch.float32) * weight_scale
    exact_bias = (middle - output.origin) / stored_unit.double()
    if int((k * torch.maximum(lowest.abs(), highest.abs()) + exact_bias.abs().ceil().long()).max()) > ACCUMULATOR:
        raise ExportError("sums do not fit 32-bit integers; the weights or the inputs need fewer bits")
    edges = runtime_edges(_factor(input, weight_scale, output), levels - output.shift)
    # Another k to either side would shift the staircase by a whole accumulator, so half a k is enough.
    around = torch.arange(-(k // 2) - 1, k // 2 + 2) if search else torch.zeros(1, dtype=torch.long)
    candidates = exact_bias.round().long()[:, None] + around
    bias, wrong = _best_bias(candidates, edges, reference, k, constant, lowest, highest)
    if search and len(levels):
        around = torch.arange(-k - 1, k + 2)
        biases = exact_bias.round().long()[:, None] + around
        other, factor = best_slope(biases, reference, levels - output.shift - 0.5, k, lowest, highest)
        other_scale = (factor * output.step / input.scale).float()
        other_edges = runtime_edges(_factor(input, other_scale, output), levels - output.shift)
        other_bias, other_wrong = _best_bias(other[:, None], other_edges, reference, k, constant, lowest, highest)
        better = ~constant & (other_wrong < wrong)
        weight_scale = torch.where(better, other_scale, weight_scale)
        bias, wrong = torch.where(better, other_bias, bias), torch.where(better, other_wrong, wrong)

    weights = k * integers
    # The sign that is stored: 1 where the scale is to be positive, otherwise the sign of the trained scale, which gives
    # back the trained integers. -128 is the one integer of int8 without a counterpart.
    fits = (weights <= INT8_HIGH).flatten(1).all(dim=1) & positive_scales
    stored_sign = torch.where(fits, 1, sign)
    return Requantization(
        weight=(weights * stored_sign.view(shape)).to(torch.int8),
        weight_scale=weight_scale * stored_sign,
        bias=bias * stored_sign,
        head_room=k,
        wrong=wrong,
        reachable=highest - lowest + 1,
        stairs=reference,
        sign=torch.where(constant, 0, sign * stored_sign),
    )


def _factor(input: IntegerInput, weight_scale: Tensor, output: IntegerInput) -> Tensor:
    """Return the factor M of each channel, with the runtime's rounding, float32 [C]."""
    unit = torch.tensor(input.scale, dtype=torch.float32) * weight_scale
    return unit / torch.tensor(output.step, dtype=torch.float32)


def _best_bias(
    candidates: Tensor, edges: Tensor, reference: Tensor, k: int, constant: Tensor, lowest: Tensor, highest: Tensor
) -> tuple[Tensor, Tensor]:
    """Return each channel's best bias and its number of wrong accumulators, int64 [C] each.

    Args:
        candidates: biases to try [C, n].
        edges: smallest k * acc + bias that reaches each level in the runtime [C, levels].
        reference: stairs of the reference [C, levels].
        k: head-room.
        constant: channels whose integers are all 0 [C].
        lowest: lowest reachable accumulator [C].
        highest: highest reachable accumulator [C].
    """
    counts = []
    for bias in candidates.T:
        # k * acc + bias >= P holds from acc = ceil((P - bias) / k) on; ceil(x) is -floor(-x).
        stairs = -torch.div(bias[:, None] - edges, k, rounding_mode="floor")
        # A constant channel reaches a level with every accumulator or with none.
        level = torch.where(bias[:, None] >= edges, lowest[:, None], highest[:, None] + 1)
        found = within(torch.where(constant[:, None], level, stairs), lowest, highest)
        counts.append(count_differing(found, reference))
    wrong = torch.stack(counts, dim=1)
    least = wrong.amin(dim=1)
    # Several candidates are usually equally good. The middle one is farthest from the edges.
    good = wrong == least[:, None]
    position = torch.arange(candidates.shape[1]).expand_as(candidates)
    middle = (position * good).sum(dim=1, keepdim=True) / good.sum(dim=1, keepdim=True)
    chosen = torch.where(good, (position - middle).abs(), float("inf")).argmin(dim=1)
    return candidates.gather(1, chosen[:, None])[:, 0], least

r"""The levels of exact sums, looked up in a table of stairs.

A requantization has one factor and one whole bias for each channel (`sqakd.export.requantization`). Where no such pair
puts every stair at its place, the layer computes its sums as whole numbers instead, and looks each sum up:

    below = clip(floor(factor * acc + shift), low, high - 1)        float32; the level, or the one below it
    level = below + (acc >= stairs[below + 1])                      a comparison of whole numbers, exact

The straight line needs to be right to half a level only, so its rounding errors do not matter. The stairs are those of
the reference in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqakd.export.errors import ExportError
from sqakd.export.integer_input import IntegerInput
from sqakd.export.ops import Staircase, count

# Up to this size float32 holds every whole number, so a sum in float32 is exact in any order of its terms.
LARGEST_SUM = 2**24


def parts_of_sums(weight: Tensor, codes: tuple[int, int]) -> int:
    """Return in how many parts single precision computes a layer's sums exactly: 1, 2, or 0 for none of both.

    In two parts, the weight is 16 * upper + lower, with lower from -8 to 7.

    Args:
        weight: whole numbers [C, ...].
        codes: lowest and highest input code.
    """
    upper = torch.div(weight.long() + 8, 16, rounding_mode="floor")
    if _fits(weight, codes):
        return 1
    return 2 if _fits(upper, codes) and _fits(weight.long() - 16 * upper, codes) else 0


def _fits(weight: Tensor, codes: tuple[int, int]) -> bool:
    """Return whether no sum of products exceeds `LARGEST_SUM` on the way, whatever the order of its terms."""
    largest = weight.long().abs().flatten(1).sum(dim=1) * max(abs(code) for code in codes)
    return bool((largest <= LARGEST_SUM).all())


@torch.no_grad()
def counted(
    stairs: Tensor, *, unit: Tensor, offset: Tensor, reachable: tuple[Tensor, Tensor], output: IntegerInput, low: int
) -> Staircase:
    """Return the stairs of a layer's sums as operators take them, checked at each stair.

    Args:
        stairs: smallest accumulator with at least the level low + 1, low + 2 .. [C, levels]; rising.
        unit: real value of one accumulator unit, >= 0, float64 [C].
        offset: real value of accumulator 0, float64 [C].
        reachable: lowest and highest accumulator that inputs can produce, [C] each.
        output: integers of the next layer's input.
        low: lowest level.

    Raises:
        ExportError: if the straight line is too far off a stair that inputs reach.
    """
    channels, levels = stairs.shape
    found = Staircase(
        factor=(unit / output.step).float(),
        shift=((offset - output.origin) / output.step + output.shift).float(),
        first=(torch.arange(channels) * levels - low).float(),
        stairs=stairs.flatten().to(torch.int32),
        low=low,
        high=low + levels,
        gap=output.gap,
    )
    lowest, highest = (end[:, None] for end in reachable)
    around = torch.cat([stairs, stairs - 1], dim=1).clamp(lowest, highest)
    level = low + torch.searchsorted(stairs, around, right=True)
    if not torch.equal(count(around[None, :, :, None].int(), found)[0, :, :, 0], (output.gap * level).to(torch.uint8)):
        raise ExportError("offsets are too large, compared with a unit of the sums, to be counted in single precision")
    return found

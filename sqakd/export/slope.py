r"""The search for a channel's bias and factor together, where a whole bias alone leaves wrong levels.

A runtime computes round(M (k acc + b)). The bias b is a whole number, so it is up to half a unit off, and each stair
that lies closer than this to a whole accumulator is then at the wrong one. A small change of the factor M moves the
stairs too, by amounts that grow with the level. For a given b, each stair allows an interval of factors:

    M (k c + b) >= e   and   M (k (c - 1) + b) < e          c its accumulator, e its edge, a whole number minus 1/2

All stairs are right for the factors in the intersection of these intervals. The bias with the widest intersection wins.
"""

from __future__ import annotations

import torch
from torch import Tensor


def allowed_factors(
    biases: Tensor, stairs: Tensor, edges: Tensor, k: int, lowest: Tensor, highest: Tensor
) -> tuple[Tensor, Tensor]:
    """Return for each bias the lowest and the highest factor with which all stairs are right, float64 [C, n] each.

    The interval is empty (lowest >= highest) where no factor is right.

    Args:
        biases: whole biases to try [C, n].
        stairs: accumulator of each stair [C, levels]; lowest: reached by all, highest + 1: reached by none.
        edges: product at which each level is reached, half a whole number, ascending [levels].
        k: head-room.
        lowest: lowest reachable accumulator [C].
        highest: highest reachable accumulator [C].
    """
    reached = (k * stairs[:, None] + biases[:, :, None]).double()  # [C, n, levels]
    e = edges.double()
    is_reached = (stairs <= highest[:, None])[:, None]
    is_missed = (stairs > lowest[:, None])[:, None]
    low = torch.zeros_like(reached)
    high = torch.full_like(reached, float("inf"))
    nothing = torch.tensor(float("inf"), dtype=torch.float64)
    # The stair's own accumulator reaches the edge.
    quotient = e / reached
    low = torch.where(is_reached & (reached > 0), quotient, low)
    high = torch.where(is_reached & (reached < 0), quotient, high)
    low = torch.where(is_reached & (reached == 0) & (e > 0), nothing, low)
    # The accumulator before it does not.
    missed = reached - k
    quotient = e / missed
    high = torch.where(is_missed & (missed > 0), torch.minimum(high, quotient), high)
    low = torch.where(is_missed & (missed < 0), torch.maximum(low, quotient), low)
    low = torch.where(is_missed & (missed == 0) & (e <= 0), nothing, low)
    return low.amax(dim=2), high.amin(dim=2)


def best_slope(
    biases: Tensor, stairs: Tensor, edges: Tensor, k: int, lowest: Tensor, highest: Tensor
) -> tuple[Tensor, Tensor]:
    """Return each channel's bias with the widest interval of factors, int64 [C], and the middle of that interval [C].

    Where no bias and factor make all stairs right, they are the first bias and 1.

    Args:
        biases: see `allowed_factors`, like the other arguments.
    """
    low, high = allowed_factors(biases, stairs, edges, k, lowest, highest)
    found = (low > 0) & (high > low) & high.isfinite()
    width = torch.where(found, high / low, 0.0)
    best = width.argmax(dim=1, keepdim=True)
    middle = torch.where(found, (low + high) / 2, 1.0)
    return biases.gather(1, best)[:, 0], middle.gather(1, best)[:, 0]

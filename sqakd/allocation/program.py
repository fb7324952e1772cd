r"""The choice of bits: an integer program that minimises the summed sensitivity under a budget, solved exactly.

For each layer l and each pair (w, a) of bits of its weight and its input there is a variable x_lwa, 0 or 1:

    minimise    sum_l sum_wa  x_lwa (loss of the weight at w + loss of the input at a)
    subject to  sum_wa x_lwa = 1                                                 for each layer l
                sum_l sum_wa  x_lwa  weights_l w                  <= size of the chosen weights
                sum_l sum_wa  x_lwa  multiply_adds_l w a          <= bit-operations of the chosen layers
                sum_l sum_wa  x_lwa  weights_l w                  <= average_bits sum_l weights_l
                sum_l sum_wa  x_lwa  inputs_l a                   <= average_bits sum_l inputs_l

The program has pairs, because the bit-operations of a layer are a product of both bits. That the losses of the layers
add up is an assumption: each was measured with all other layers float.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from sqakd.allocation.budget import Budget
from sqakd.allocation.costs import Pair, Rest
from sqakd.allocation.limits import Limit, limits_of, pairs_of
from sqakd.allocation.table import LayerSensitivity
from sqakd.errors import SqakdError

TRIES = 8


def allocate(
    layers: Sequence[LayerSensitivity],
    budget: Budget,
    rest: Rest,
    *,
    w_widths: Sequence[int] | None = None,
    a_widths: Sequence[int] | None = None,
) -> dict[str, Pair]:
    """Return the bits of each layer with the smallest summed sensitivity.

    Args:
        layers: those whose bits are chosen.
        budget: with at least one limit.
        rest: cost of everything else.
        w_widths: numbers of bits to choose from for weights; None: those of the budget.
        a_widths: the same for inputs.

    Raises:
        SqakdError: if no choice keeps within the budget; the message has the smallest possible value.
    """
    if not layers:
        raise SqakdError("there is no layer whose bits could be chosen; the first and the last layer stay float")
    pairs = pairs_of(budget, w_widths, a_widths)
    limits = limits_of(layers, budget, rest, pairs)
    losses = [[layer.weight[w] + layer.input[a] for w, a in pairs] for layer in layers]
    chosen = _solve(losses, limits)
    if chosen is None:
        raise SqakdError(
            f"no choice of bits keeps within {budget.text()} together, though each limit alone is possible; expected a"
            f" larger one"
        )
    return {layer.name: pairs[choice] for layer, choice in zip(layers, chosen, strict=True)}


def _solve(losses: list[list[float]], limits: Sequence[Limit]) -> list[int] | None:
    """Return the choice of each layer; None if there is none.

    The solver accepts sums that exceed a limit by a rounding error. A solution that does so is refused here, and the
    solver gets a limit that is lower by the excess.
    """
    layers, choices = len(losses), len(losses[0])
    one_each = sparse.kron(sparse.eye(layers), np.ones((1, choices)), format="csr")
    most = [limit.most for limit in limits]
    for _ in range(TRIES):
        constraints = [LinearConstraint(one_each, 1, 1)]
        for limit, bound in zip(limits, most, strict=True):
            unit = math.gcd(*(cost for costs in limit.costs for cost in costs)) or 1  # smaller numbers are more exact
            row = np.array(limit.costs, dtype=np.float64).reshape(1, -1) / unit
            constraints.append(LinearConstraint(row, -np.inf, bound // unit))
        found = milp(
            np.array(losses).ravel(),
            constraints=constraints,
            integrality=np.ones(layers * choices),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0},
        )
        if found.x is None:
            return None
        chosen = [int(row.argmax()) for row in found.x.reshape(layers, choices)]
        sums = [sum(costs[c] for costs, c in zip(limit.costs, chosen, strict=True)) for limit in limits]
        if all(total <= limit.most for total, limit in zip(sums, limits, strict=True)):
            return chosen
        most = [bound - max(total - limit.most, 0) for bound, total, limit in zip(most, sums, limits, strict=True)]
    return None

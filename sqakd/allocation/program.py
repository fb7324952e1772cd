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
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from sqakd.allocation.budget import Budget
from sqakd.allocation.costs import Pair, Rest
from sqakd.allocation.table import LayerSensitivity
from sqakd.errors import SqakdError

TRIES = 8


class _Limit(NamedTuple):
    """One row of the program: the cost of each choice, and the largest sum. All numbers are whole."""

    argument: str
    costs: list[list[int]]
    most: int


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
    pairs = [Pair(w, a) for w, a in product(w_widths or budget.widths, a_widths or budget.widths)]
    limits = _limits(layers, budget, rest, pairs)
    for limit in limits:
        _check_possible(limit, layers, budget, rest, pairs)
    losses = [[layer.weight[w] + layer.input[a] for w, a in pairs] for layer in layers]
    chosen = _solve(losses, limits)
    if chosen is None:
        raise SqakdError(
            f"no choice of bits keeps within {budget.text()} together, though each limit alone is possible; expected a"
            f" larger one"
        )
    return {layer.name: pairs[choice] for layer, choice in zip(layers, chosen, strict=True)}


def _limits(layers: Sequence[LayerSensitivity], budget: Budget, rest: Rest, pairs: Sequence[Pair]) -> list[_Limit]:
    """Return the rows of the program."""
    limits = []
    sizes = [[layer.weights * w for w, _ in pairs] for layer in layers]
    if budget.bytes is not None:
        limits.append(_Limit("size", sizes, 8 * budget.bytes - rest.bits))
    if budget.operations is not None:
        operations = [[layer.multiply_adds * w * a for w, a in pairs] for layer in layers]
        limits.append(_Limit("bit_operations", operations, budget.operations - rest.bit_operations))
    if budget.average_bits is not None:
        inputs = [[layer.inputs * a for _, a in pairs] for layer in layers]
        for costs, total in (
            (sizes, sum(layer.weights for layer in layers)),
            (inputs, sum(layer.inputs for layer in layers)),
        ):
            limits.append(_Limit("average_bits", costs, math.floor(budget.average_bits * total + 1e-6)))
    return limits


def _check_possible(
    limit: _Limit, layers: Sequence[LayerSensitivity], budget: Budget, rest: Rest, pairs: Sequence[Pair]
) -> None:
    """Refuse a limit below the smallest possible value.

    Raises:
        SqakdError: with that value.
    """
    least = sum(min(costs) for costs in limit.costs)
    if least <= limit.most:
        return
    few = f"{min(w for w, _ in pairs)} bits for each weight and {min(a for _, a in pairs)} for each input"
    smallest = {
        "size": f"{math.ceil((least + rest.bits) / 8)} bytes",
        "bit_operations": f"{least + rest.bit_operations}",
        "average_bits": f"{max(min(w for w, _ in pairs), min(a for _, a in pairs))}",
    }[limit.argument]
    raise SqakdError(
        f"{limit.argument}={getattr(budget, limit.argument)}: expected at least {smallest}, the smallest possible, with"
        f" {few}"
    )


def _solve(losses: list[list[float]], limits: Sequence[_Limit]) -> list[int] | None:
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

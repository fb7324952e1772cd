"""The limits of a budget as sums over the layers, and the refusal of those that no choice of bits keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from sqakd.allocation.budget import Budget
from sqakd.allocation.costs import Pair, Rest
from sqakd.allocation.table import LayerSensitivity
from sqakd.errors import SqakdError


class Limit(NamedTuple):
    """One row of the integer program. All numbers are whole.

    Attributes:
        argument: of the budget.
        costs: for each layer, the cost of each pair of bits.
        most: the largest sum.
    """

    argument: str
    costs: list[list[int]]
    most: int


def pairs_of(budget: Budget, w_widths: Sequence[int] | None, a_widths: Sequence[int] | None) -> list[Pair]:
    """Return the pairs of bits to choose from; None stands for the numbers of bits of the budget."""
    return [Pair(w, a) for w, a in product(w_widths or budget.widths, a_widths or budget.widths)]


def limits_of(layers: Sequence[LayerSensitivity], budget: Budget, rest: Rest, pairs: Sequence[Pair]) -> list[Limit]:
    """Return the limits of a budget.

    Args:
        layers: those whose bits are chosen; their losses do not matter here.
        budget: with at least one limit.
        rest: cost of everything else.
        pairs: the bits to choose from.

    Raises:
        SqakdError: if there is no layer, or a limit is below the smallest possible value, which the message has.
    """
    if not layers:
        raise SqakdError("there is no layer whose bits could be chosen; the first and the last layer stay float")
    limits = []
    sizes = [[layer.weights * w for w, _ in pairs] for layer in layers]
    if budget.bytes is not None:
        limits.append(Limit("size", sizes, 8 * budget.bytes - rest.bits))
    if budget.operations is not None:
        operations = [[layer.multiply_adds * w * a for w, a in pairs] for layer in layers]
        limits.append(Limit("bit_operations", operations, budget.operations - rest.bit_operations))
    if budget.average_bits is not None:
        inputs = [[layer.inputs * a for _, a in pairs] for layer in layers]
        for costs, total in (
            (sizes, sum(layer.weights for layer in layers)),
            (inputs, sum(layer.inputs for layer in layers)),
        ):
            limits.append(Limit("average_bits", costs, math.floor(budget.average_bits * total + 1e-6)))
    for limit in limits:
        _check_possible(limit, budget, rest, pairs)
    return limits


def _check_possible(limit: Limit, budget: Budget, rest: Rest, pairs: Sequence[Pair]) -> None:
    """Refuse a limit below the smallest possible value.

    Raises:
        SqakdError: with that value.
    """
    least = sum(min(costs) for costs in limit.costs)
    if least <= limit.most:
        return
    few = f"weights of {_bits(min(w for w, _ in pairs))} and inputs of {_bits(min(a for _, a in pairs))}"
    smallest = {
        "size": f"{math.ceil((least + rest.bits) / 8)} bytes",
        "bit_operations": f"{least + rest.bit_operations}",
        "average_bits": f"{max(min(w for w, _ in pairs), min(a for _, a in pairs))}",
    }[limit.argument]
    raise SqakdError(
        f"{limit.argument}={getattr(budget, limit.argument)}: expected at least {smallest}, the smallest possible, with"
        f" {few}"
    )


def _bits(number: int) -> str:
    return f"{number} bit{'s' if number > 1 else ''}"

"""The choice of bits: the best of all choices, within each limit to the bit, or the smallest possible value."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest

from sqakd.allocation.budget import Budget
from sqakd.allocation.costs import Pair, Rest, average_bits
from sqakd.allocation.program import allocate
from sqakd.allocation.table import LayerSensitivity
from sqakd.errors import SqakdError

WIDTHS = [1, 2, 4]
REST = Rest(bits=1001, bit_operations=12_345)


def made_up_layers(seed: int, count: int = 3) -> list[LayerSensitivity]:
    draw = random.Random(seed)
    return [
        LayerSensitivity(
            name=f"layer{i}",
            weights=draw.randint(10, 999),
            multiply_adds=draw.randint(100, 9999),
            inputs=draw.randint(10, 99),
            weight={bits: draw.random() / 4**bits for bits in WIDTHS},
            input={bits: draw.random() / 4**bits for bits in WIDTHS},
        )
        for i in range(count)
    ]


LAYERS = made_up_layers(1)


def budget_of(**given: Any) -> Budget:
    values = {"size": None, "bit_operations": None, "average_bits": None, "widths": WIDTHS, "criterion": "kl"}
    return Budget(**{**values, "images": 8, **given})


def keeps(layers: list[LayerSensitivity], chosen: dict[str, Pair], budget: Budget) -> bool:
    size, operations = REST.cost_with(layers, chosen)
    return (
        (budget.bytes is None or size <= budget.bytes)
        and (budget.operations is None or operations <= budget.operations)
        and (budget.average_bits is None or max(average_bits(layers, chosen)) <= budget.average_bits + 1e-9)
    )


def loss(layers: list[LayerSensitivity], chosen: dict[str, Pair]) -> float:
    return sum(layer.weight[chosen[layer.name].weight] + layer.input[chosen[layer.name].input] for layer in layers)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("given", [{"average_bits": 2.3}, {"size": 500}, {"size": 500, "bit_operations": 90_000}])
def test_no_other_choice_within_the_budget_is_better(seed: int, given: Any) -> None:
    layers, budget = made_up_layers(seed), budget_of(**given)
    pairs = [Pair(*pair) for pair in itertools.product(WIDTHS, WIDTHS)]
    every = [dict(zip([layer.name for layer in layers], c, strict=True)) for c in itertools.product(pairs, repeat=3)]
    possible = [choice for choice in every if keeps(layers, choice, budget)]
    if not possible:
        with pytest.raises(SqakdError, match=r"smallest possible|no choice of bits keeps within"):
            allocate(layers, budget, REST)
        return
    chosen = allocate(layers, budget, REST)
    assert keeps(layers, chosen, budget)
    assert loss(layers, chosen) == pytest.approx(min(loss(layers, choice) for choice in possible))


@pytest.mark.parametrize("argument", ["size", "bit_operations", "average_bits"])
def test_the_smallest_possible_value_is_named_and_accepted(argument: str) -> None:
    layers, few = made_up_layers(0), 2 if argument == "size" else 0.5
    message = rf"{argument}={few}: expected at least (\d+).*, the smallest possible, with weights of 1 bit"
    with pytest.raises(SqakdError, match=message) as error:
        allocate(layers, budget_of(**{argument: few}), REST)
    value = int(str(error.value).partition("at least ")[2].split()[0].rstrip(","))
    assert {pair.weight for pair in allocate(layers, budget_of(**{argument: value}), REST).values()} == {1}
    with pytest.raises(SqakdError, match="expected at least"):
        allocate(layers, budget_of(**{argument: value * 0.999}), REST)


def test_a_budget_without_effect_gives_the_most_bits() -> None:
    layers = [replace(layer, weight={b: 1 / b for b in WIDTHS}, input={b: 1 / b for b in WIDTHS}) for layer in LAYERS]
    chosen = allocate(layers, budget_of(average_bits=8), REST)
    assert set(chosen.values()) == {Pair(4, 4)}


def test_several_limits_count_together_and_no_layer_is_refused() -> None:
    (one,) = made_up_layers(0, count=1)
    budget = budget_of(average_bits=1, bit_operations=REST.bit_operations + one.multiply_adds)
    assert allocate([one], budget, REST) == {one.name: Pair(1, 1)}
    with pytest.raises(SqakdError, match="there is no layer whose bits could be chosen"):
        allocate([], budget, REST)


def test_bits_that_are_fixed_for_weights_or_inputs_are_kept() -> None:
    layers = made_up_layers(2)
    chosen = allocate(layers, budget_of(size=10_000), REST, a_widths=[2])
    assert {pair.input for pair in chosen.values()} == {2}


def test_a_large_network_is_solved_in_seconds() -> None:
    layers = made_up_layers(3, count=60)
    budget = budget_of(average_bits=2.2, bit_operations=1_500_000)
    chosen = allocate(layers, budget, REST)
    assert keeps(layers, chosen, budget)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": "40 kilobytes"}, "size='40 kilobytes': expected an amount such as 40kB"),
        ({"size": -1}, "size=-1: expected an amount"),
        ({"bit_operations": "many"}, "bit_operations='many': expected an amount such as 200M"),
        ({"average_bits": 0}, "average_bits=0: expected a number above 0"),
        ({"widths": [9]}, r"widths=\[9\]: expected whole numbers from 1 to 8"),
        ({"criterion": "loss"}, "criterion='loss': expected kl or curvature"),
        ({"images": 0}, "images=0: expected a whole number of at least 1"),
    ],
)
def test_a_wrong_budget_is_refused(given: Any, message: str) -> None:
    with pytest.raises(SqakdError, match=message):
        budget_of(**given)


@pytest.mark.parametrize(("size", "amount"), [("40kB", 40_000), ("1.5MB", 1_500_000), (77.0, 77), ("77304B", 77_304)])
def test_amounts_are_read_in_their_units(size: Any, amount: int) -> None:
    assert budget_of(size=size).bytes == amount

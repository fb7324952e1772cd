"""Costs of a network whose bits are chosen: those of the chosen layers, and those of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqakd.allocation.table import LayerSensitivity


class Pair(NamedTuple):
    """Bits of the weight and of the input of one layer."""

    weight: int
    input: int


@dataclass(frozen=True, kw_only=True)
class Rest:
    """The cost of everything in a network whose bits are not chosen.

    Attributes:
        bits: packed size in bits.
        bit_operations: for one image.
    """

    bits: int
    bit_operations: int

    def cost_with(self, layers: Sequence[LayerSensitivity], chosen: Mapping[str, Pair]) -> tuple[int, int]:
        """Return packed size in bytes and bit-operations of the whole network with the chosen bits."""
        pairs = [(layer, *chosen[layer.name]) for layer in layers]
        bits = self.bits + sum(layer.weights * w for layer, w, _ in pairs)
        return (bits + 7) // 8, self.bit_operations + sum(layer.multiply_adds * w * a for layer, w, a in pairs)


def average_bits(layers: Sequence[LayerSensitivity], chosen: Mapping[str, Pair]) -> tuple[float, float]:
    """Return the average bits over all weights, and over all elements of the inputs."""
    weights, inputs = sum(layer.weights for layer in layers), sum(layer.inputs for layer in layers)
    return (
        sum(layer.weights * chosen[layer.name].weight for layer in layers) / weights,
        sum(layer.inputs * chosen[layer.name].input for layer in layers) / inputs,
    )

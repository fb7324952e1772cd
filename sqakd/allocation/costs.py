"""Costs of a network whose bits are chosen: those of the chosen layers, and those of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from sqakd.allocation.table import LayerSensitivity
from sqakd.quantization.probe import hooks_removed, run_on_black_image


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


def counts(layers: Mapping[nn.Module, str], model: nn.Module, shape: tuple[int, int, int]) -> list[LayerSensitivity]:
    """Return the counts of layers without any losses, from one pass of the network.

    Args:
        layers: name of each layer.
        model: network that contains them.
        shape: channels, height, width of an image.
    """
    found: dict[str, tuple[int, int, int]] = {}

    def look(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer.weight, Tensor)
        before = found.get(layers[layer], (0, 0, args[0].numel()))
        multiply_adds = before[1] + output.numel() * layer.weight[0].numel()
        found[layers[layer]] = layer.weight.numel(), multiply_adds, before[2]

    with hooks_removed(layer.register_forward_hook(look) for layer in layers):
        run_on_black_image(model, shape)
    return [
        LayerSensitivity(name=name, weights=weights, multiply_adds=operations, inputs=inputs, weight={}, input={})
        for name, (weights, operations, inputs) in found.items()
    ]

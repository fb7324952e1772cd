"""Comparison of an integer network with the trained one in float64, layer by layer.

A single code that rounds the other way changes everything behind it, which hides where differences arise. Here the
trained network gets, at the input of each layer, the codes of the integer network. So every difference that is counted
arises between two layers, and none comes from earlier layers.

The reference computes in float64, because the trained network itself rounds in float32: where a value lies on the edge
between two codes, the order in which float32 adds decides. Such a tie is no error of the export, and is recognised by
its distance from the edge.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sqakd.export.integer_input import IntegerInput
from sqakd.export.modules import IntegerLayer
from sqakd.export.stored import StoredInput
from sqakd.quantization.layers import QuantLayer, quant_layers
from sqakd.quantization.quantizers.base import Quantizer


@dataclass(frozen=True)
class Differences:
    """A comparison of the codes of one layer's input with the trained network's.

    Attributes:
        codes: number of codes that were compared.
        differing: number of codes that differ.
        farthest: of the values whose codes differ, the largest distance in steps from an edge that lies between the two
            codes.
    """

    codes: int = 0
    differing: int = 0
    farthest: float = 0.0

    def described(self) -> dict[str, int | float | None]:
        """Return the entries of layers.json; None where nothing was compared."""
        share = self.differing / self.codes if self.codes else None
        farthest = self.farthest if self.codes else None
        return {"codes_compared": self.codes, "codes_that_differ": share, "farthest_from_an_edge": farthest}

    def __add__(self, other: Differences) -> Differences:
        farthest = max(self.farthest, other.farthest)
        return Differences(self.codes + other.codes, self.differing + other.differing, farthest)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The result of an integer network, with the integers that its layers got.

    Attributes:
        stored: for each layer, the stored integers of its input in each of its calls.
        inputs: for each layer, the meaning of these integers.
        logits: [N, classes].
    """

    stored: Mapping[str, list[Tensor]]
    inputs: Mapping[str, StoredInput]
    logits: Tensor


@torch.no_grad()
def recorded(lowered: nn.Module, x: Tensor) -> Recorded:
    """Run an integer network in torch.

    Args:
        lowered: made by `sqakd.export.lower.lower`.
        x: normalised images [N, C, H, W].
    """
    found: dict[str, list[Tensor]] = defaultdict(list)

    def record(layer: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(layer, IntegerLayer)
        found[layer.name].append(args[0])

    layers = [module for module in lowered.modules() if isinstance(module, IntegerLayer)]
    hooks = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        logits = lowered(x)
    finally:
        for hook in hooks:
            hook.remove()
    return Recorded(stored=found, inputs={layer.name: layer.stored for layer in layers}, logits=logits)


@torch.no_grad()
def code_differences(network: nn.Module, x: Tensor, got: Recorded) -> tuple[dict[str, Differences], float]:
    """Return the differing input codes of each layer, and the largest difference between two logits.

    The difference of the logits is relative to the standard deviation of the trained network's logits.

    Args:
        network: quantized and calibrated.
        x: normalised images [N, C, H, W].
        got: the result of an integer network, made from `network`, for these images.
    """
    found: dict[str, Differences] = {name: Differences() for name, _ in quant_layers(network)}
    trained = dict(quant_layers(network))
    calls: dict[str, int] = defaultdict(int)

    def compare(name: str) -> Callable[..., Any]:
        def hook(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
            input, number = got.inputs[name], calls[name]
            calls[name] += 1
            level = torch.div(got.stored[name][number].double(), input.input.gap) + input.base
            assert isinstance(layer, QuantLayer)
            wanted = _codes(layer.input_quantizer, trained[name].input_quantizer, args[0])
            found[name] += _differences(input.input, level, wanted, args[0])
            return (input.input.value(level).double(),)

        return hook

    reference = in_double(network)
    hooks = [layer.register_forward_pre_hook(compare(name)) for name, layer in quant_layers(reference)]
    try:
        wanted = reference(x.double())
    finally:
        for hook in hooks:
            hook.remove()
    return found, float((got.logits.double() - wanted).abs().max() / wanted.std())


def in_double(network: nn.Module) -> nn.Module:
    """Return a copy of a trained network that computes in float64, with the weights' codes of the trained network."""
    twin = copy.deepcopy(network).double().eval()
    for (_, layer), (_, trained) in zip(quant_layers(twin), quant_layers(network), strict=True):
        codes, scale = trained.weight_quantizer.encode(trained.weight)
        layer.weight_quantizer = _FixedCodes(codes.detach().double(), scale.detach().double())  # type: ignore[assignment]
    return twin


class _FixedCodes(nn.Module):
    """A weight quantizer that returns the same codes and scale for each weight."""

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.codes, self.scale = codes, scale

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes and scale."""
        return self.codes, self.scale


def _codes(quantizer: Quantizer, trained: Quantizer, x: Tensor) -> Tensor:
    """Return the codes of `x`, float64 [...]; 0 may lie on an edge, and its code is the trained network's own."""
    at_zero = trained.codes(torch.zeros(1)).integers.double()
    return torch.where(x == 0, at_zero, quantizer.codes(x).integers.double())


def _differences(input: IntegerInput, level: Tensor, wanted: Tensor, x: Tensor) -> Differences:
    wanted_level = (wanted + input.zero_point) / input.gap
    differs = level != wanted_level
    place = (x[differs] - input.origin) / input.step + input.shift
    # Level n lies between the edges n - 1/2 and n + 1/2. These are the two outermost edges between both levels.
    low = torch.minimum(level, wanted_level)[differs] + 0.5
    high = torch.maximum(level, wanted_level)[differs] - 0.5
    distance = torch.maximum((place - low).abs(), (place - high).abs())
    return Differences(differs.numel(), len(distance), float(distance.max()) if len(distance) else 0.0)

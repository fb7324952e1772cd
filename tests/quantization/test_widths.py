"""Bits of single layers: patterns, the precedence of several of them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import small
import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.quantization.convert import quantize
from sqakd.quantization.cost import cost
from sqakd.quantization.layers import layer_bits

SCHEME = small.scheme("quantizer=lsq", "w_bits=2", "a_bits=3")
INNER = {f"layer{stage}.0.conv{i}": (2, 3) for stage in (1, 2, 3) for i in (1, 2)}


def bits_with(**patterns: Any) -> dict[str, tuple[int, int]]:
    model = small.network()
    quantize(model, replace(SCHEME, **patterns))
    return layer_bits(model)


@pytest.mark.parametrize(
    ("patterns", "changed"),
    [
        ({"layer_bits": {"layer3.*": 4}}, {"layer3.0.conv1": (4, 4), "layer3.0.conv2": (4, 4)}),
        ({"layer_w_bits": {"layer1.0.conv?": 1}}, {"layer1.0.conv1": (1, 3), "layer1.0.conv2": (1, 3)}),
        ({"layer_a_bits": {"layer2.0.conv1": 8}}, {"layer2.0.conv1": (2, 8)}),
        ({"layer_bits": {"layer2.0.conv1": 8}, "layer_w_bits": {"layer2.*1": 5}}, {"layer2.0.conv1": (5, 8)}),
        ({"layer_bits": {"conv1": 8}}, {"conv1": (8, 8)}),
        ({"first_last": "8", "layer_w_bits": {"linear": 4}}, {"conv1": (8, 8), "linear": (4, 8)}),
        ({"first_last": "same", "layer_bits": {"conv1": 6}}, {"conv1": (6, 6), "linear": (2, 3)}),
    ],
)
def test_a_pattern_gives_the_layers_that_it_matches_other_bits(patterns: Any, changed: Any) -> None:
    assert bits_with(**patterns) == INNER | changed


def test_the_last_of_several_patterns_counts_and_a_warning_says_so() -> None:
    match = r"several patterns match layer1\.0\.conv1 \(\*\.conv1: 4, layer1\.\*1: 1\); the last one counts"
    with pytest.warns(UserWarning, match=match):
        found = bits_with(layer_w_bits={"*.conv1": 4, "layer1.*1": 1}, layer_a_bits={"layer*": 3})
    assert [found[name][0] for name in INNER] == [1, 2, 4, 2, 4, 2]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"layer_bits": {"conv1": 9}}, r"layer_bits={conv1: 9}: expected a whole number from 1 to 8"),
        ({"layer_w_bits": {"conv1": 0}}, r"layer_w_bits={conv1: 0}: expected a whole"),
        ({"layer_a_bits": {"conv1": True}}, r"layer_a_bits={conv1: True}: expected a whole"),
        ({"layer_bits": 4}, r"layer_bits=4: expected bits by the name of a layer"),
        ({"layer_bits": {"layer1.0.conv3": 4}}, r"matches no layer; similar names are .*layer1\.0\.conv1"),
        ({"layer_bits": {"xyz": 4}}, r"matches no layer; the layers are conv1, .* and 5 more"),
        ({"layer_bits": {"layer3": 4}}, r"is a module and no layer; layer3\.\* matches all layers in it"),
        ({"layer_w_bits": {"conv1": 4}}, r"layer conv1 stays float with first_last=float, and its input has no bits"),
    ],
)
def test_wrong_patterns_are_refused(patterns: Any, message: str) -> None:
    with pytest.raises(SqakdError, match=message):
        bits_with(**patterns)


class Unused(nn.Module):
    """A network with a layer that is never called, between two that are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.first(x)
        y: Tensor = self.last(maps.mean(dim=(2, 3)))
        return y


def test_a_layer_that_is_never_called_is_named() -> None:
    scheme = replace(SCHEME, layer_bits={"unused": 4}, first_last="same")
    with pytest.raises(SqakdError, match=r"has 'unused', .* are never called: unused \(Conv2d\)"):
        quantize(Unused(), scheme, image_shape=(3, 8, 8))


def test_layers_that_share_an_input_need_the_same_bits() -> None:
    scheme = small.scheme("quantizer=lsq_released", "bits=2", "quantizer.outer=released", "quantizer.first_last=same")
    with pytest.raises(SqakdError, match=r"layers left and right read the same tensor, .* have 4 and 2 bits"):
        quantize(Branches(), replace(scheme, layer_a_bits={"left": 4}), image_shape=(3, 8, 8))


class Branches(nn.Module):
    """Two convolutions of one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.left, self.right = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        left: Tensor = self.left(x)
        right: Tensor = self.right(x)
        return left + right


def test_cost_counts_each_layer_at_its_own_bits() -> None:
    plain, mixed = small.network(), small.network()
    quantize(plain, SCHEME)
    quantize(mixed, replace(SCHEME, layer_bits={"layer3.0.conv2": 8}))
    weights = mixed.get_parameter("layer3.0.conv2.weight").numel()
    multiply_adds = 2 * 2 * weights  # the maps of the third stage are 2x2 for images of 8x8
    before, after = cost(plain, small.SHAPE), cost(mixed, small.SHAPE)
    assert after.packed_bytes - before.packed_bytes == weights * (8 - 2) // 8
    assert after.bit_operations - before.bit_operations == multiply_adds * (8 * 8 - 2 * 3)

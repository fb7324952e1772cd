"""The integer network against the trained one: every network of the tables, and ones made to be difficult."""

from __future__ import annotations

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from export_networks import NETWORKS, images_for, make
from torch import fx, nn

from sqakd.export.compare import code_differences
from sqakd.export.lower import Lowering, lower
from sqakd.export.modules import IntegerOutput
from sqakd.export.streams import integer_layers
from sqakd.layers import QuantLayer
from sqakd.quantize import quant_layers

PLAIN = Lowering()


def check_equal(lowered: fx.GraphModule, network: nn.Module, name: str, *, n: int = 4, limit: float = 2e-3) -> None:
    """A map of a few pixels has few codes, so that one code that rounds the other way is a visible share of them."""
    shares, difference = code_differences(lowered, network, images_for(name, n))
    assert set(shares) == {name for name, _ in quant_layers(network)}
    assert max(shares.values()) <= limit, shares
    assert sum(shares.values()) / len(shares) <= limit / 10, shares
    assert difference <= 1e-4


QUICK = ("resnet20", "vgg8", "squeezenet", "mobilenet_v2")
METHODS = ("ewgs", "lsq", "pact", "dorefa", "lsq_released", "pact_released")


def slow_unless(quick: bool, *values: object) -> ParameterSet:
    return pytest.param(*values, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("name", [slow_unless(name in QUICK, name) for name in NETWORKS])
@torch.no_grad()
def test_each_network_computes_the_same_with_integers(name: str) -> None:
    network = make(name, "quantizer=ewgs", bits=2)
    lowered = lower(network, PLAIN)
    assert not any(isinstance(module, QuantLayer) for module in lowered.modules())
    assert {layer.name for layer in integer_layers(lowered)} == {name for name, _ in quant_layers(network)}
    check_equal(lowered, network, name)


@pytest.mark.parametrize(
    ("method", "bits"),
    [slow_unless(bits == 1 + 3 * (i % 2), method, bits) for i, method in enumerate(METHODS) for bits in (1, 2, 4, 7)],
)
@torch.no_grad()
def test_each_method_at_each_number_of_bits(method: str, bits: int) -> None:
    network = make("resnet20", f"quantizer={method}", bits=bits)
    lowered = lower(network, PLAIN)
    check_equal(lowered, network, "resnet20", limit=1e-3 if bits < 4 else 5e-3)
    for layer in integer_layers(lowered):
        if isinstance(layer, IntegerOutput):
            share = float(layer.certificate.wrong.sum() / layer.certificate.reachable.sum())
            assert share <= 1e-3, (layer.name, share)

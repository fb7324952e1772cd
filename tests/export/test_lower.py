"""The integer network against the trained one: every network of the tables, and ones made to be difficult."""

from __future__ import annotations

import pytest
import small
import torch
from _pytest.mark.structures import ParameterSet
from export_networks import NETWORKS, images_for, make
from torch import Tensor, fx, nn

from sqakd.export.artefacts import describe
from sqakd.export.compare import code_differences
from sqakd.export.errors import ExportError
from sqakd.export.lower import Lowering, lower
from sqakd.export.modules import IntegerOutput
from sqakd.export.streams import integer_layers
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.quantization.layers import QuantLayer, quant_layers

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


@pytest.mark.parametrize("method", ["ewgs", "pact", "dorefa"])
def test_a_grid_that_does_not_fit_8_bits_is_refused_or_rounded(method: str) -> None:
    network = small.quantized(f"quantizer={method}", "bits=8").eval()
    with pytest.raises(
        ExportError, match=r"layer layer1\.0\.conv1: .* do not fit 8-bit integers; type regrid=true"
    ) as error:
        lower(network, PLAIN)
    assert "\n" not in str(error.value)
    lowered = lower(network, Lowering(regrid=True))
    assert all(0 < layer["regrid_error"] < 0.02 for layer in describe(lowered))
    x = small.batch(16)
    with torch.no_grad():
        got, wanted = lowered(x), network(x)
    assert float((got - wanted).norm() / wanted.norm()) <= 0.1


def test_a_grid_with_a_zero_fits_8_bits() -> None:
    network = small.quantized("quantizer=lsq", "bits=8").eval()
    assert all(layer["regrid_error"] == 0 for layer in describe(lower(network, PLAIN)))


def test_a_quantizer_that_depends_on_the_batch_is_refused() -> None:
    network = small.quantized("quantizer=dorefa_released", "bits=2").eval()
    with pytest.raises(ExportError, match="so a prediction depends on its neighbours"):
        lower(network, PLAIN)


class Circular(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.third = nn.Conv2d(4, 4, 3, padding="same")
        self.last = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.third(self.second(self.first(x))).mean(dim=(2, 3)))
        return y


def test_padding_other_than_zeros_is_refused() -> None:
    network = Circular()
    quantize(network, small.scheme("quantizer=lsq"))
    calibrate(network, small.batch(8))
    with pytest.raises(ExportError, match="layer second pads with padding_mode='circular'"):
        lower(network.eval(), PLAIN)


def test_the_network_itself_stays_as_it_was() -> None:
    network = small.quantized("quantizer=ewgs", "bits=2").eval()
    before, x = {k: v.clone() for k, v in network.state_dict().items()}, small.batch(4)
    with torch.no_grad():
        wanted = network(x)
        lower(network, PLAIN)
        assert torch.equal(network(x), wanted)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

"""The integer network compared with the trained one: every network and method of the tables, and difficult cases.

The ONNX files of these networks are tested here too, because large networks take long to lower.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import small
import torch
from _pytest.mark.structures import ParameterSet
from export_networks import NETWORKS, images_for, make
from onnx_files import run, weights_by_name
from torch import Tensor, fx, nn
from torch.nn import functional as F

from sqakd.advice import explain
from sqakd.export.artefacts import describe_layers
from sqakd.export.compare import Differences, code_differences, recorded
from sqakd.export.errors import ExportError
from sqakd.export.levels import LevelOutput
from sqakd.export.lower import Lowering, lower
from sqakd.export.modules import integer_layers
from sqakd.export.pack import pack
from sqakd.export.to_onnx import Deployed, to_onnx
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.quantization.layers import QuantLayer, quant_layers

PLAIN = Lowering()


def check_equal(lowered: fx.GraphModule, network: nn.Module, name: str, *, n: int = 4) -> None:
    """Compare codes and logits; only values on the edge between two codes may get another code."""
    x = images_for(name, n)
    differences, difference = code_differences(network, x, recorded(lowered, x))
    assert set(differences) == {name for name, _ in quant_layers(network)}
    assert all(found.codes for found in differences.values())
    total = sum(differences.values(), Differences())
    assert total.farthest <= 1e-5, differences
    assert total.differing <= 5e-6 * total.codes + 1, differences
    assert difference <= 1e-4


@cache
def prepared(name: str, method: str, bits: int) -> tuple[nn.Module, fx.GraphModule]:
    """Return a quantized network and its integer twin."""
    network = make(name, f"quantizer={method}", bits=bits)
    return network, lower(network, PLAIN)


QUICK = ("resnet8", "vgg8", "squeezenet", "mobilenet_v2")
METHODS = ("ewgs", "lsq", "pact", "dorefa", "lsq_released", "pact_released")


def slow_unless(quick: bool, *values: object) -> ParameterSet:
    return pytest.param(*values, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("name", [slow_unless(name in QUICK, name) for name in NETWORKS])
@torch.no_grad()
def test_each_network_computes_the_same_with_integers(name: str) -> None:
    network, lowered = prepared(name, "ewgs", 2)
    assert not any(isinstance(module, QuantLayer) for module in lowered.modules())
    assert {layer.name for layer in integer_layers(lowered)} == {name for name, _ in quant_layers(network)}
    check_equal(lowered, network, name)


@pytest.mark.parametrize(
    ("method", "bits"),
    [slow_unless(bits == 1 + 3 * (i % 2), method, bits) for i, method in enumerate(METHODS) for bits in (1, 2, 4, 7)],
)
@torch.no_grad()
def test_each_method_computes_the_same_at_each_number_of_bits(method: str, bits: int) -> None:
    network, lowered = prepared("resnet8", method, bits)
    check_equal(lowered, network, "resnet8")
    assert all(layer.wrong_sums == 0 for layer in integer_layers(lowered) if isinstance(layer, LevelOutput))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.slow
def test_the_file_of_each_network_computes_the_same(name: str) -> None:
    _, lowered = prepared(name, "ewgs", 2)
    x = images_for(name, 3)
    proto = to_onnx(Deployed(lowered, None, None), tuple(x.shape[1:]), weights="cast")  # type: ignore[arg-type]
    with torch.no_grad():
        wanted = lowered(x).numpy()
    assert np.abs(run(proto, x) - wanted).max() <= 1e-4 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize(("bits", "limit"), [(1, 80_000), (2, 115_000), (4, 185_000)])
@pytest.mark.slow
def test_a_packed_resnet20_has_at_most_the_documented_size(bits: int, limit: int) -> None:
    _, lowered = prepared("resnet20", "ewgs", bits)
    proto = to_onnx(Deployed(lowered, None, None), (3, 32, 32), weights="cast")
    packed = pack(proto, weights_by_name(lowered), "auto")
    assert packed.ByteSize() <= limit
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(run(packed, x), run(proto, x))


@pytest.mark.parametrize("method", ["ewgs", "pact", "dorefa"])
def test_a_grid_that_does_not_fit_8_bits_is_refused_or_rounded(method: str) -> None:
    network = small.quantized(f"quantizer={method}", "bits=8").eval()
    with pytest.raises(ExportError, match=r"layer layer1\.0\.conv1: .* do not fit 8-bit integers$") as error:
        lower(network, PLAIN)
    assert "use regrid=true" in explain(error.value)
    lowered = lower(network, Lowering(regrid=True))
    assert all(0 < layer["regrid_error"] < 0.02 for layer in describe_layers(lowered))
    x = small.batch(16)
    with torch.no_grad():
        got, wanted = lowered(x), network(x)
    assert float((got - wanted).norm() / wanted.norm()) <= 0.1


def test_a_grid_with_a_zero_fits_8_bits() -> None:
    network = small.quantized("quantizer=lsq", "bits=8").eval()
    assert all(layer["regrid_error"] == 0 for layer in describe_layers(lower(network, PLAIN)))


def test_a_quantizer_that_depends_on_the_batch_is_refused() -> None:
    network = small.quantized("quantizer=dorefa_released", "bits=2").eval()
    with pytest.raises(ExportError, match="a prediction depends on the other images"):
        lower(network, PLAIN)


class FunctionalNorm(nn.Module):
    """Batch norm as a function behind a check, as in timm; and once with statistics of the batch."""

    def __init__(self, *, training: bool, affine: bool = True) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.third, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 10)
        self.norm = nn.BatchNorm2d(8, affine=affine)
        self.batch = training
        with torch.no_grad():
            assert self.norm.running_mean is not None
            assert self.norm.running_var is not None
            self.norm.running_mean.copy_(torch.linspace(-0.2, 0.3, 8))
            self.norm.running_var.copy_(torch.linspace(0.1, 0.4, 8))
            if affine:
                self.norm.weight.copy_(torch.linspace(-1, 1.5, 8))
                self.norm.bias.copy_(torch.linspace(0.3, -0.1, 8))

    def forward(self, x: Tensor) -> Tensor:
        x, norm = self.second(self.first(x)), self.norm
        torch._assert(x.ndim == 4, "expected images")
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=self.batch, eps=1e-3)
        y: Tensor = self.last(self.third(x.relu()).mean(dim=(2, 3)))
        return y


@pytest.mark.parametrize(("training", "affine", "between"), [(False, True, 1), (False, False, 1), (True, True, 0)])
def test_batch_norm_as_a_function_is_folded_like_the_module(training: bool, affine: bool, between: int) -> None:
    network = FunctionalNorm(training=training, affine=affine).eval()
    x = small.batch(16)
    quantize(network, small.scheme("quantizer=lsq", "bits=3"))
    calibrate(network, x)
    lowered = lower(network, PLAIN)
    assert sum(isinstance(layer, LevelOutput) for layer in integer_layers(lowered)) == between
    with torch.no_grad():
        assert torch.allclose(lowered(x), network.eval()(x), atol=1e-5)


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
    with pytest.raises(ExportError, match="layer second: padding_mode='circular'"):
        lower(network.eval(), PLAIN)


def test_lowering_does_not_change_the_network() -> None:
    network = small.quantized("quantizer=ewgs", "bits=2").eval()
    before, x = {k: v.clone() for k, v in network.state_dict().items()}, small.batch(4)
    with torch.no_grad():
        wanted = network(x)
        lower(network, PLAIN)
        assert torch.equal(network(x), wanted)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

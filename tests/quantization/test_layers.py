"""Quantized layers: outputs and gradients against the explicit formula, and conversion from float and back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import small
import torch
from torch import Tensor, nn

from sqakd.quantization.convert import TWINS
from sqakd.quantization.layers import QuantConv2d, QuantLayer, QuantLinear

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "no bias": lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False),
    "stride": lambda: nn.Conv2d(4, 6, 3, stride=2, bias=False),
    "grouped": lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False),
    "pointwise": lambda: nn.Conv2d(4, 6, 1),
    "dilated": lambda: nn.Conv2d(4, 6, (1, 3), dilation=2, padding=(0, 2)),
    "circular": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    "same": lambda: nn.Conv2d(4, 6, 3, padding="same", bias=False),
    "linear": lambda: nn.Linear(7, 5),
    "linear, no bias": lambda: nn.Linear(7, 5, bias=False),
}
# Learned bounds with an output scale; learned steps per output channel; a learned step without an output scale.
SCHEMES: dict[str, list[str]] = {
    "ewgs": ["quantizer=ewgs", "quantizer.rounding.delta=0.1", "quantizer.output_scale=true"],
    "lsq": ["quantizer=lsq", "quantizer.per_channel=true", "quantizer.output_scale=true"],
    "no output scale": ["quantizer=lsq", "quantizer.per_channel=false", "quantizer.output_scale=false"],
}
each_layer = pytest.mark.parametrize("kind", LAYERS)
each_scheme = pytest.mark.parametrize("name", SCHEMES)


def float_layer(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[kind]()


def inputs(layer: nn.Module, seed: int = 1) -> Tensor:
    shape = (3, 4, 9, 9) if isinstance(layer, nn.Conv2d) else (2, 3, 7)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).relu()


def quantize_layer(layer: nn.Module, name: str, bits: int = 3) -> QuantLayer:
    """Return a calibrated layer whose output scale, if any, has become negative."""
    twin = small.scheme(*SCHEMES[name]).convert(layer, bits=bits)
    twin.calibrate(inputs(layer))
    if twin.output_scale is not None:
        twin.output_scale.data.mul_(-1.3)
    return twin


def explicit(layer: QuantLayer, x: Tensor) -> Tensor:
    """Return (input_q * weight_q + bias) |output_scale|, computed from real values."""
    y = layer.apply_op(layer.input_quantizer(x), layer.weight_quantizer(layer.weight), layer.bias)
    return y if layer.output_scale is None else y * layer.output_scale.abs()


def gradients(function: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the gradients of a random weighting of the outputs, by name; the input's name is "x"."""
    leaf = x.clone().requires_grad_()
    y = function(leaf)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    named = {"x": leaf, **dict(layer.named_parameters())}
    return dict(zip(named, torch.autograd.grad(y, list(named.values()), weights), strict=True))


@each_scheme
@each_layer
def test_outputs_and_gradients_equal_the_explicit_formula(kind: str, name: str) -> None:
    layer = quantize_layer(float_layer(kind), name).double()
    x = inputs(layer).double()
    torch.testing.assert_close(layer(x), explicit(layer, x), rtol=1e-12, atol=1e-12)
    got, wanted = gradients(layer, layer, x), gradients(lambda leaf: explicit(layer, leaf), layer, x)
    assert {"x", "weight"} < got.keys()
    assert ("output_scale" in got) == (name != "no output scale")
    for parameter, gradient in wanted.items():
        assert (gradient != 0).any(), parameter
        torch.testing.assert_close(got[parameter], gradient, rtol=1e-10, atol=1e-10, msg=parameter)


@each_scheme
@each_layer
@torch.no_grad()
def test_single_precision_is_close_to_double(kind: str, name: str) -> None:
    layer = quantize_layer(float_layer(kind), name)
    x = inputs(layer)
    got, wanted = layer(x), explicit(copy.deepcopy(layer).double(), x.double())
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("bits", [1, 2, 8])
@each_scheme
@pytest.mark.parametrize("kind", ["no bias", "depthwise", "linear, no bias"])
def test_layer_multiplies_integers(kind: str, name: str, bits: int) -> None:
    """The output equals the product of the codes, which is exact, times one factor per channel, bit for bit."""
    layer = quantize_layer(float_layer(kind), name, bits)
    x = inputs(layer)
    weight, input = layer.weight_quantizer.codes(layer.weight), layer.input_quantizer.codes(x)
    product = layer.apply_op(input.integers.double(), weight.integers.double(), None)
    assert torch.equal(product, product.round())
    gain = weight.scale * input.scale
    if layer.output_scale is not None:
        gain = gain * layer.output_scale.detach().abs()
    gain = gain.reshape(-1, *[1] * (layer.weight.ndim - 2))
    assert torch.equal(layer(x), product.float() * gain)


@each_scheme
def test_codes_stay_exact_in_bfloat16(name: str) -> None:
    """Only the output is rounded, so its relative error is that of bfloat16 even if the sum cancels."""
    layer = quantize_layer(float_layer("no bias"), name, bits=8)
    x = inputs(layer)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), layer(x), rtol=2**-7, atol=0)


@each_layer
def test_from_float_shares_the_parameters(kind: str) -> None:
    layer = float_layer(kind)
    before = list(layer.state_dict())
    twin = quantize_layer(layer, "ewgs")
    assert isinstance(twin, nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear)
    assert twin.weight is layer.weight
    assert twin.bias is layer.bias
    assert list(layer.state_dict()) == before, "the float layer is unchanged"


@each_layer
def test_to_float_undoes_from_float(kind: str) -> None:
    layer = float_layer(kind)
    x = inputs(layer)
    back = quantize_layer(layer, "ewgs").to_float()
    assert type(back) is type(layer)
    assert vars(back).keys() == vars(layer).keys()
    assert list(back.state_dict()) == list(layer.state_dict())
    assert dict(back.named_modules()).keys() == {""}
    assert all(a is b for a, b in zip(back.parameters(), layer.parameters(), strict=True))
    assert repr(back) == repr(layer)
    assert torch.equal(back(x), layer(x))


def test_hooks_survive_conversion_and_return() -> None:
    layer = float_layer("conv")
    seen: list[str] = []
    layer.register_forward_pre_hook(lambda module, _: seen.append(type(module).__name__))
    twin = quantize_layer(layer, "ewgs")
    twin(inputs(layer))
    twin.to_float()(inputs(layer))
    assert seen == ["QuantConv2d", "Conv2d"]


@each_scheme
@pytest.mark.parametrize("kind", ["conv", "linear, no bias"])
def test_state_dict_restores_the_outputs(kind: str, name: str) -> None:
    trained = quantize_layer(float_layer(kind), name)
    fresh = small.scheme(*SCHEMES[name]).convert(LAYERS[kind](), bits=3)
    x = inputs(trained)
    fresh.load_state_dict(trained.state_dict(), strict=True)
    assert torch.equal(fresh(x), trained(x))
    with pytest.raises(RuntimeError, match="already calibrated"):
        fresh.calibrate(x)


@each_layer
@torch.no_grad()
def test_calibration_restores_the_magnitude_of_the_output(kind: str) -> None:
    layer = float_layer(kind)
    x = inputs(layer)
    twin = small.scheme(*SCHEMES["ewgs"]).convert(layer, bits=3)
    twin.calibrate(x)
    assert float(twin(x).abs().mean()) == pytest.approx(float(layer(x).abs().mean()), rel=1e-5)


def test_output_that_is_always_zero_is_refused() -> None:
    """With one bit and inputs of 0 and 1, EWGS's upper bound is 2.5, so both inputs get code 0."""
    layer = float_layer("no bias")
    twin = small.scheme(*SCHEMES["ewgs"]).convert(layer, bits=1)
    with pytest.raises(ValueError, match="every quantized output is zero"):
        twin.calibrate((inputs(layer) > 0).float())


def test_inputs_far_from_zero_get_a_range() -> None:
    layer = float_layer("no bias")
    twin = small.scheme(*SCHEMES["ewgs"]).convert(layer, bits=3)
    x = 5 + 0.1 * inputs(layer)
    twin.calibrate(x)
    assert (torch.bincount(twin.input_quantizer.codes(x).integers.flatten()) > 0).tolist() == [True] * 8


@pytest.mark.parametrize(("float_type", "twin"), [(nn.Conv2d, QuantConv2d), (nn.Linear, QuantLinear)])
def test_each_twin_has_its_float_type(float_type: Any, twin: Any) -> None:
    assert TWINS[float_type] is twin
    assert twin.float_type is float_type

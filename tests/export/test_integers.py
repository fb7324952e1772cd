"""Every quantizer as integers: equal codes, and integer convolutions that equal the trained layer in float64."""

from __future__ import annotations

import pytest
import torch
from export_networks import convert, expected_refusal
from quantizer_cases import METHODS, Case
from torch import Tensor, nn

from sqakd.export.errors import ExportError
from sqakd.export.integer_input import IntegerInput, integer_input
from sqakd.export.integer_weight import IntegerWeight, integer_weight
from sqakd.quantization.layers import QuantLayer

SLOW = pytest.mark.slow
BITS = (1, 2, 4, 8)
OTHER_BITS = (3, 5, 6, 7)
SIGNS = ("unsigned", "signed")
each = pytest.mark.parametrize("bits", [*BITS, *(pytest.param(bits, marks=SLOW) for bits in OTHER_BITS)])
each_method = pytest.mark.parametrize("method", METHODS)
each_sign = pytest.mark.parametrize("sign", SIGNS)


def typical(sign: str) -> Tensor:
    x = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 1.7
    return x.relu() if sign == "unsigned" else x


def trained_layer(method: str, bits: int, sign: str, *, per_channel: bool = False) -> QuantLayer:
    """Return a calibrated convolution with bias, in float64, whose ranges are moved as training moves them."""
    torch.manual_seed(1)
    layer = convert(nn.Conv2d(3, 5, 3, padding=1), method, bits, per_channel=per_channel)
    layer.calibrate(typical(sign))
    for parameter in layer.parameters():
        if parameter is not layer.weight and parameter is not layer.bias:
            parameter.data.mul_(0.9).add_(0.013 * torch.ones_like(parameter))
    if layer.output_scale is not None:
        layer.output_scale.data.neg_()
    layer.double()
    return layer


def both(layer: QuantLayer) -> tuple[IntegerInput, IntegerWeight]:
    return (
        integer_input(layer.input_quantizer),
        integer_weight(layer.weight_quantizer, layer.weight, regrid=False),
    )


def integer_conv(layer: QuantLayer, input: IntegerInput, weight: IntegerWeight, x: Tensor) -> Tensor:
    """Return y = g dA dW (A * W) + g b, with whole numbers only inside the convolution."""
    gain = 1.0 if layer.output_scale is None else float(layer.output_scale.detach().abs())
    product = layer.apply_op(input.codes(x), weight.integers.double(), None)
    assert torch.equal(product, product.round())
    y = product * (gain * input.scale * weight.scale)[:, None, None]
    assert layer.bias is not None
    return y + (gain * layer.bias.detach().double())[:, None, None]


@each
@each_sign
@each_method
@torch.no_grad()
def test_an_integer_convolution_equals_the_trained_layer(method: str, sign: str, bits: int) -> None:
    for per_channel in (False, True):
        layer = trained_layer(method, bits, sign, per_channel=per_channel)
        x = 2 * typical(sign).double()
        refusal = expected_refusal(layer)
        if refusal:
            with pytest.raises(ExportError) as error:
                both(layer)
            assert error.value.topic == refusal
            return
        input, weight = both(layer)
        assert torch.equal(input.codes(x), layer.input_quantizer.codes(x).integers.double())
        assert input.stored(x).max() <= input.gap * input.levels
        got, wanted = integer_conv(layer, input, weight, x), layer(x)
        assert float((got - wanted).abs().max()) <= 1e-6 * float(wanted.abs().max())


@each
@each_method
def test_stairs_are_where_the_method_has_them(method: str, bits: int) -> None:
    """Values a hair's breadth from each stair get the same codes as in training."""
    quantizer = Case(method, "input", bits).calibrated().double()
    try:
        spec = integer_input(quantizer)
    except ExportError:
        return
    stairs = spec.origin + (torch.arange(spec.levels, dtype=torch.float64) + 0.5 - spec.shift) * spec.step
    hair = 1e-6 * max(spec.step, spec.scale)
    near = torch.cat([stairs - hair, stairs + hair])
    assert torch.equal(spec.codes(near), quantizer.codes(near).integers.double())


@each_method
def test_weights_that_do_not_fit_are_regridded_on_request(method: str) -> None:
    layer = trained_layer(method, 8, "unsigned")
    spec = integer_weight(layer.weight_quantizer, layer.weight, regrid=True)
    assert int(spec.integers.abs().max()) <= 128
    values = spec.integers.double() * spec.scale[:, None, None, None]
    trained = layer.weight_quantizer(layer.weight).detach()
    error = float((values - trained).norm() / trained.norm())
    assert error == pytest.approx(spec.error, abs=1e-6)
    assert error < 0.02


def test_the_methods_of_the_paper_are_among_the_cases() -> None:
    assert {"ewgs", "lsq", "pact", "dorefa", "lsq_released", "pact_released"} <= set(METHODS)

"""The EWGS layer, its calibration and the quantized networks against the reference numbers."""

from __future__ import annotations

from typing import Any

import golden_data as golden
import numpy as np
import pytest
import torch
from golden_networks import SCALARS, bits_of, check_float, check_quantized
from torch import Tensor, nn

from sqakd.models.resnet import CifarResNet
from sqakd.quantization.layers import QuantConv2d
from sqakd.quantization.quantizers.ewgs import ActivationBounds, WeightBounds
from sqakd.quantization.quantizers.rounding import ElementWiseGradientScaling

FILES = [
    "01_ewgs_layer_delta0",
    "01_ewgs_layer_delta0p001",
    "01_ewgs_layer_delta0p1",
    "01_ewgs_layer_special",
]


def make_layer(d: dict[str, Any], i: int) -> QuantConv2d:
    weight = torch.from_numpy(d[f"weight_{i:02d}"])
    conv = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        3,
        stride=int(d["stride"][i]),
        padding=1,
        bias=bool(d["has_bias"][i]),
    )
    conv.weight.data.copy_(weight)
    if conv.bias is not None:
        conv.bias.data.copy_(torch.from_numpy(d[f"bias_{i:02d}"]))
    delta_w, delta_a = (float(d[k][i]) if k in d else 0.0 for k in ("delta_w", "delta_a"))
    return QuantConv2d.from_float(
        conv,
        weight=lambda shape: WeightBounds(
            bits=bits_of(d["levels_w"][i]), rounding=ElementWiseGradientScaling(delta=delta_w), shape=shape
        ),
        input=lambda shape: ActivationBounds(
            bits=bits_of(d["levels_a"][i]), rounding=ElementWiseGradientScaling(delta=delta_a), shape=shape
        ),
        output_scale=True,
        per_channel=False,
    )


@pytest.mark.parametrize("file", FILES)
def test_layer_outputs_codes_and_gradients(file: str) -> None:
    d = golden.load(file)
    for i in range(int(d["n_cases"])):
        layer = make_layer(d, i)
        for key, name in SCALARS.items():
            layer.get_parameter(name).data.fill_(float(d[key][i]))
        x = torch.from_numpy(d[f"x_{i:02d}"]).requires_grad_()
        y = layer(x)
        y.backward(torch.from_numpy(d[f"g_{i:02d}"]))

        assert np.abs(layer.input_quantizer(x).detach().numpy() - d[f"x_q_{i:02d}"]).max() <= 1e-6
        assert np.abs(layer.weight_quantizer(layer.weight).detach().numpy() - d[f"w_q_{i:02d}"]).max() <= 1e-6
        assert golden.error(y, d[f"y_{i:02d}"]) <= 1e-5
        assert golden.error(gradient(x), d[f"dx_{i:02d}"]) <= 1e-5
        assert golden.error(gradient(layer.weight), d[f"dweight_{i:02d}"]) <= 1e-5
        if layer.bias is not None:
            assert golden.error(gradient(layer.bias), d[f"dbias_{i:02d}"]) <= 1e-5
        for key, name in SCALARS.items():
            assert golden.close_sum(gradient(layer.get_parameter(name)), d[f"d{key}"][i]), (i, key)


def gradient(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad


def test_calibration_from_a_batch() -> None:
    d = golden.load("01_ewgs_init")
    for i in range(int(d["n_cases"])):
        layer = make_layer(d, i)
        x = torch.from_numpy(d[f"x_{i:02d}"])
        layer.calibrate(x)
        for key, name in SCALARS.items():
            assert layer.get_parameter(name).item() == pytest.approx(float(d[key][i]), rel=1e-5, abs=1e-7), (
                i,
                key,
            )
        assert golden.error(layer(x), d[f"y_{i:02d}"]) <= 1e-5


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet32", 5)])
def test_float_network(name: str, blocks: int) -> None:
    classes = int(golden.load(f"06_cifar_{name}_fp")["num_classes"])
    check_float(CifarResNet(blocks=blocks, num_classes=classes), name)


@pytest.mark.parametrize(("name", "blocks", "tolerance"), [("resnet20", 3, 1e-4), ("resnet32", 5, 0.1)])
def test_quantized_network(name: str, blocks: int, tolerance: float) -> None:
    """In ResNet-32 a few inputs lie within 1e-6 of a rounding threshold, and the tolerance allows for such flips."""
    classes = int(golden.load(f"06_cifar_{name}_ewgs")["num_classes"])
    check_quantized(CifarResNet(blocks=blocks, num_classes=classes), name, first=None, tolerance=tolerance)

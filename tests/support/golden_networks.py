"""Comparison of networks with the reference numbers, float and with EWGS quantizers."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import golden_data as golden
import numpy as np
import small
import torch
from torch import Tensor, nn

from sqakd.kd.hooks import Features
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import Scheme, quantize
from sqakd.quantization.layers import QuantConv2d, quant_layers
from sqakd.quantization.parameters import split_parameters
from sqakd.quantization.quantizers.ewgs import ActivationBounds, WeightBounds
from sqakd.quantization.quantizers.rounding import StraightThrough

SCALARS = {
    "lW": "weight_quantizer.lower",
    "uW": "weight_quantizer.upper",
    "lA": "input_quantizer.lower",
    "uA": "input_quantizer.upper",
    "output_scale": "output_scale",
}


def bits_of(levels: np.ndarray) -> int:
    return int(np.log2(levels))


def ewgs_scheme(bits: int) -> Scheme:
    return Scheme(
        weight=partial(WeightBounds, bits=bits, start="paper"),
        input=partial(ActivationBounds, bits=bits, start="paper"),
        rounding=StraightThrough,
        per_channel=False,
        output_scale=True,
        first_last="float",
        start=None,
        outer="float",
    )


def check_running_statistics(model: nn.Module, reference: np.ndarray) -> None:
    """Compare the sums of all running means and variances; means cancel, so the tolerance uses their magnitudes."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    for key, wanted in zip(("running_mean", "running_var"), reference, strict=True):
        values = [getattr(norm, key).double() for norm in norms]
        magnitude = sum(float(value.abs().sum()) for value in values)
        assert abs(sum(float(value.sum()) for value in values) - float(wanted)) <= 1e-5 * magnitude, key


def parameters(name: str) -> int:
    """Return the number of parameters of a float network in the reference."""
    layers = golden.names(f"06_cifar_{name}_layers")
    return sum(math.prod(layer["shape"]) for layer in layers if not layer["kind"].startswith("running"))


def taps(name: str) -> list[str]:
    """Return the feature layers of a network as configured in conf/model."""
    return list(small.config(f"model={name.removesuffix('_bn')}").model.feature_layers)


def check_features(features: list[Tensor], d: dict[str, Any], mode: str, tolerance: float) -> None:
    """Compare shape, mean and standard deviation of each feature; mode is "eval" or "train"."""
    if "feat_shapes" in d:
        assert [[*feature.shape[1:], 1, 1][:3] for feature in features] == d["feat_shapes"].tolist()
    values = [feature.detach().double() for feature in features]
    assert np.allclose([float(x.mean()) for x in values], d[f"feat_mean_{mode}"], rtol=tolerance)
    assert np.allclose([float(x.std(correction=0)) for x in values], d[f"feat_std_{mode}"], rtol=tolerance)


def check_float(model: nn.Module, name: str) -> None:
    """Compare the number of parameters, and logits and features in both modes."""
    d = golden.load(f"06_cifar_{name}_fp")
    golden.fill(model, golden.names(f"06_cifar_{name}_layers"), int(d["seed"]))
    assert sum(p.numel() for p in model.parameters()) == parameters(name)
    x, features = golden.images(d["input_shape"], int(d["seed"]), calibration=False), Features(model, taps(name))
    assert golden.error(model.eval()(x), d["logits_eval"]) <= 1e-5
    check_features(features.take(), d, "eval", 1e-5)
    assert golden.error(model.train()(x), d["logits_train"]) <= 1e-4
    check_features(features.take(), d, "train", 1e-5)
    check_running_statistics(model, d["bn_running_sums_after_train"])


def check_quantized(model: nn.Module, name: str, *, first: list[str] | None, tolerance: float) -> None:
    """Compare quantized layers, their parameters, ranges and codes, and logits and features in both modes."""
    d = golden.load(f"06_cifar_{name}_ewgs")
    golden.fill(model, golden.names(f"06_cifar_{name}_layers"), int(d["seed"]))
    swapped = quantize(model, ewgs_scheme(bits_of(d["levels_w"])), first=first)
    assert swapped == golden.names(f"06_cifar_{name}_ewgs_qconvs")
    network, quantizers = split_parameters(model)
    assert sum(p.numel() for p in network) == parameters(name)
    assert sum(p.numel() for p in quantizers) == sum(d[key].size for key in SCALARS)

    calibrate(model, golden.images(d["input_shape"], int(d["seed"]), calibration=True))
    layers = [layer for _, layer in quant_layers(model)]
    for key, path in SCALARS.items():
        got = [layer.get_parameter(path).item() for layer in layers]
        assert np.allclose(got, d[key], rtol=1e-5, atol=1e-7), key
    check_running_statistics(model, d["bn_running_sums_after_init"])

    x = golden.images(d["input_shape"], int(d["seed"]), calibration=False)
    histograms: list[list[int]] = []

    def count(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, QuantConv2d)
        histograms.append(torch.bincount(layer.input_quantizer.codes(args[0]).integers.flatten()).tolist())

    hooks = [layer.register_forward_pre_hook(count) for layer in layers]
    features = Features(model, taps(name))
    logits = model.eval()(x)
    check_features(features.take(), d, "eval", tolerance)
    for hook in hooks:
        hook.remove()
    flips = np.abs(np.array(histograms) - d["act_code_hist_eval"])
    assert flips.max() <= 0.001 * d["act_code_hist_eval"].sum(axis=1).max()
    assert golden.error(logits, d["logits_eval"]) <= tolerance
    assert golden.error(model.train()(x), d["logits_train"]) <= 1e-4
    check_features(features.take(), d, "train", 1e-4)

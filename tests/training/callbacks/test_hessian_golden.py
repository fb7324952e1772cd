"""Curvature and gradient scaling factors against exact traces of a tiny network."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import golden_data as golden
import numpy as np
import pytest
import small
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.dataset.batch import Batch
from sqakd.quantization.curvature import Curvature, Slice, estimate, recorded_codes
from sqakd.quantization.layers import QuantConv2d
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.ewgs import ActivationBounds, WeightBounds
from sqakd.quantization.quantizers.rounding import ElementWiseGradientScaling
from sqakd.training.callbacks.hessian_scaling import HessianScaling
from sqakd.training.task import Task

FILES = ["02_hessian_bn_w1a1_prior", "02_hessian_bn_w2a2", "02_hessian_nobn_w2a2"]
# Estimates from many probes take long, so the others run with all slow tests.
SAMPLED = [*(pytest.param(file, marks=pytest.mark.slow) for file in FILES[:2]), FILES[2]]


class TinyNet(nn.Module):
    def __init__(self, d: dict[str, Any]) -> None:
        super().__init__()
        for name in ("q1", "q2"):
            weight = torch.from_numpy(d[f"param_{name}_weight"])
            bias = d.get(f"param_{name}_bias")
            stride = int(d["stride"][int(name[1]) - 1])
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, stride=stride, padding=1, bias=bias is not None)
            conv.weight.data.copy_(weight)
            if bias is not None and conv.bias is not None:
                conv.bias.data.copy_(torch.from_numpy(bias))
            layer = QuantConv2d.from_float(
                conv,
                weight=lambda shape: WeightBounds(
                    bits=int(np.log2(d["levels_w"])), rounding=scaling(), shape=shape, start="paper"
                ),
                input=lambda shape: ActivationBounds(
                    bits=int(np.log2(d["levels_a"])), rounding=scaling(), shape=shape, start="paper"
                ),
                output_scale=True,
                per_channel=False,
            )
            for key, path in (
                ("lW", "weight_quantizer.lower"),
                ("uW", "weight_quantizer.upper"),
                ("lA", "input_quantizer.lower"),
                ("uA", "input_quantizer.upper"),
                ("output_scale", "output_scale"),
            ):
                layer.get_parameter(path).data.fill_(float(d[f"param_{name}_{key}"]))
            layer.get_buffer("weight_quantizer.rounding.delta").fill_(float(d["delta_w_prior"]))
            layer.get_buffer("input_quantizer.rounding.delta").fill_(float(d["delta_a_prior"]))
            self.add_module(name, layer)
            norm = nn.BatchNorm2d(weight.shape[0]) if d["has_bn"] else nn.Identity()
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.data.copy_(torch.from_numpy(d[f"param_bn{name[1]}_weight"]))
                norm.bias.data.copy_(torch.from_numpy(d[f"param_bn{name[1]}_bias"]))
            self.add_module(f"bn{name[1]}", norm)
        weight = torch.from_numpy(d["param_linear_weight"])
        self.linear = nn.Linear(weight.shape[1], weight.shape[0])
        self.linear.weight.data.copy_(weight)
        self.linear.bias.data.copy_(torch.from_numpy(d["param_linear_bias"]))

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in ("q1", "bn1"), ("q2", "bn2"):
            x = F.relu(self.get_submodule(norm)(self.get_submodule(conv)(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits

    def targets(self) -> list[Quantizer]:
        """Return the quantizers in the reference's order: A1, A2, W1, W2."""
        q1, q2 = cast(QuantConv2d, self.q1), cast(QuantConv2d, self.q2)
        return [q1.input_quantizer, q2.input_quantizer, q1.weight_quantizer, q2.weight_quantizer]


def scaling() -> ElementWiseGradientScaling:
    return ElementWiseGradientScaling(delta="hessian")


def batch_loss(model: TinyNet, d: dict[str, Any], b: int) -> Callable[[], Tensor]:
    images, labels = torch.from_numpy(d["batch_x"][b]), torch.from_numpy(d["batch_y"][b]).long()
    return lambda: F.cross_entropy(model(images), labels)


@pytest.mark.parametrize("file", FILES)
def test_gradients_and_diagonal(file: str) -> None:
    """The recorded graph equals the reference's: one derivative per element gives the Hessian diagonal."""
    d = golden.load(file)
    model = TinyNet(d).train()
    targets = model.targets()
    with recorded_codes(targets) as codes:
        loss = batch_loss(model, d, 0)()
    assert float(loss.detach()) == pytest.approx(float(d["loss"][0]), rel=1e-5)
    tensors = [codes[quantizer] for quantizer in targets]
    gradients = torch.autograd.grad(loss, tensors, create_graph=True)
    for name, quantizer, tensor, gradient in zip(("A1", "A2", "W1", "W2"), targets, tensors, gradients, strict=True):
        assert (tensor.detach().numpy() == d[f"codes_{name}"][0]).all()
        assert golden.error(gradient * quantizer.steps, d[f"grad_{name}"][0]) <= 1e-5
        diagonal = []
        for i in range(tensor.numel()):
            (row,) = torch.autograd.grad(gradient.flatten()[i], tensor, retain_graph=True)
            diagonal.append(row.flatten()[i])
        hessian = torch.stack(diagonal).reshape(tensor.shape) * quantizer.steps**2
        assert golden.error(hessian, d[f"hess_diag_{name}"][0]) <= 1e-4


@pytest.mark.exhaustive
@pytest.mark.parametrize("file", SAMPLED)
def test_joint_probes_are_unbiased(file: str) -> None:
    """With one product for all tensors, the mean of many probes is within five standard errors of each exact trace."""
    d = golden.load(file)
    model = TinyNet(d).train()
    groups = np.array(
        [
            estimate(
                [Slice(batch_loss(model, d, 0), 1.0)],
                model,
                model.targets(),
                max_probes=100,
                tolerance=0.0,
                generator=torch.Generator().manual_seed(seed),
            ).trace.numpy()
            for seed in range(20)
        ]
    )
    standard_error = groups.std(axis=0, ddof=1) / np.sqrt(len(groups))
    deviation = np.abs(groups.mean(axis=0) - d["trace_exact"][0])
    assert (deviation <= 5 * standard_error + 1e-6).all(), (deviation, standard_error)
    # The allowed error is small compared with the traces, so that a wrong factor cannot hide in it.
    assert (standard_error < 0.15 * np.abs(d["trace_exact"][0]).max()).all()


@pytest.mark.parametrize("file", SAMPLED)
def test_deltas(file: str) -> None:
    d = golden.load(file)
    model = TinyNet(d).train()
    task = SimpleNamespace(
        seed=0,
        device=torch.device("cpu"),
        student=model,
        eager_losses=lambda images, label, *_: small.objective(ce=1.0, kl=0.0)(model(images), None, label),
        draw=lambda _: {},
        objective=nn.Identity(),
    )
    callback = HessianScaling(
        update_every=1, batches=3, batch_size=5, slice_size=5, max_probes=1000, tolerance=0.0, epsilon=1e-12
    )
    pairs = [(torch.from_numpy(d["batch_x"][b]), torch.from_numpy(d["batch_y"][b]).long()) for b in range(3)]
    batches = [Batch(images, label, torch.arange(5), {}) for images, label in pairs]
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}
    callback.update(cast(Task, task), model.targets(), batches, epoch=0)
    got = np.array([float(q.get_buffer("rounding.delta")) for q in model.targets()])
    assert np.abs(got - d["delta_exact"]).max() <= 0.15 * np.abs(d["delta_exact"]).max()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers() if name in before)


def images_and_labels(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    d = golden.load(FILES[2])
    images = torch.randn(count, *d["batch_x"][0].shape[1:], generator=generator)
    return images, torch.randint(int(d["param_linear_bias"].shape[0]), (count,), generator=generator)


def in_slices(model: TinyNet, images: Tensor, labels: Tensor, size: int) -> list[Slice]:
    parts = list(zip(torch.split(images, size), torch.split(labels, size), strict=True))
    return [Slice(lambda x=x, y=y: F.cross_entropy(model(x), y), len(x) / len(images)) for x, y in parts]  # type: ignore[misc]


def curvature_of(model: TinyNet, slices: list[Slice], max_probes: int = 3) -> Curvature:
    generator = torch.Generator().manual_seed(0)
    targets = model.targets()
    return estimate(slices, model, targets, max_probes=max_probes, tolerance=0.0, generator=generator)


@pytest.mark.parametrize("size", [1, 3, 8, 16])
def test_slices_do_not_change_the_estimate(size: int) -> None:
    """The network has no batch norm; slices of 3 images end with one image."""
    model = TinyNet(golden.load(FILES[2])).train()
    images, labels = images_and_labels(16)
    whole = curvature_of(model, in_slices(model, images, labels, 16))
    sliced = curvature_of(model, in_slices(model, images, labels, size))
    assert torch.equal(sliced.elements, whole.elements)
    torch.testing.assert_close(sliced.trace, whole.trace, rtol=1e-3, atol=1e-4 * float(whole.trace.abs().max()))
    torch.testing.assert_close(sliced.gradient_std, whole.gradient_std, rtol=1e-4, atol=0.0)


def test_deviation_of_the_gradient_depends_on_the_batch_as_its_noise_does() -> None:
    """Weights: variance = signal + noise / N. Inputs: each has 1 / N of the loss, which the scaling factor cancels."""
    model = TinyNet(golden.load(FILES[2])).train()
    images, labels = images_and_labels(512)

    def variance(size: int) -> Tensor:
        parts = zip(torch.split(images, size), torch.split(labels, size), strict=True)
        found = [curvature_of(model, in_slices(model, x, y, 32), max_probes=1).gradient_std ** 2 for x, y in parts]
        return torch.stack(found).mean(dim=0)

    small, middle, large = variance(32), variance(128), variance(512)
    noise = (small - middle) / (1 / 32 - 1 / 128)
    signal = middle - noise / 128
    expected = signal + noise / 512
    assert (small[2:] > 1.2 * large[2:]).all(), (small, large)
    assert torch.allclose(large[2:], expected[2:], rtol=0.2), (large, expected)
    assert torch.allclose(large[:2], small[:2] / 16**2, rtol=0.1), (large, small)


def test_non_finite_estimate_changes_nothing() -> None:
    d = golden.load(FILES[1])
    model = TinyNet(d).train()
    for quantizer in model.targets():
        quantizer.get_buffer("rounding.delta").fill_(0.25)
    task = SimpleNamespace(
        seed=0,
        device=torch.device("cpu"),
        student=model,
        eager_losses=lambda images, *_: {"loss": model(images).sum() * float("nan")},
        draw=lambda _: {},
        objective=nn.Identity(),
    )
    callback = HessianScaling(
        update_every=1, batches=1, batch_size=5, slice_size=5, max_probes=2, tolerance=0.0, epsilon=1e-12
    )
    images = torch.from_numpy(d["batch_x"][0])
    callback.update(cast(Task, task), model.targets(), [Batch(images, None, torch.arange(5), {})], epoch=0)
    assert [float(q.get_buffer("rounding.delta")) for q in model.targets()] == [0.25] * 4


def test_stopping_rule_uses_magnitudes() -> None:
    """With Hessian 2 I every probe gives the exact trace, so the second one stops the search."""
    d = golden.load(FILES[2])
    model = TinyNet(d).train()
    quantizer = model.targets()[0]
    images = torch.from_numpy(d["batch_x"][0])
    curvature = estimate(
        [Slice(lambda: (quantizer.encode(images)[0] ** 2).sum(), 1.0)],
        model,
        [quantizer],
        max_probes=50,
        tolerance=1e-3,
        generator=torch.Generator().manual_seed(0),
    )
    assert curvature.probes == 2
    assert float(curvature.trace) == pytest.approx(2 * images.numel() * quantizer.steps**2)

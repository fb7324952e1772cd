"""Sensitivities: equal to those of networks in which one tensor is quantized, whatever the network does in place."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import small
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.allocation import gauss_newton, measure
from sqakd.allocation.candidates import make_candidates
from sqakd.errors import SqakdError
from sqakd.quantization.convert import quantize

IMAGES = small.batch(12)
WIDTHS = (1, 3)


class InPlace(nn.Module):
    """A network that changes tensors in place and calls one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.last = nn.Hardswish(inplace=True), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x += self.relu(self.body(x))
        x = self.body(x)
        logits: Tensor = self.last(x.mean(dim=(2, 3)))
        return logits


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return (small.network() if kind == "resnet" else InPlace()).eval()


@torch.no_grad()
def by_hand(model: nn.Module, name: str, tensor: str, bits: int, method: str) -> float:
    """Return the divergence with one tensor rounded by a hook, or in the weight itself."""
    scheme = small.scheme(f"quantizer={method}")
    (layer,) = [one for one in make_candidates(model, scheme, IMAGES, [bits]) if one.name == name]
    candidate, module = layer.candidates[tensor, bits], model.get_submodule(name)
    teacher = F.log_softmax(model(IMAGES), dim=1)
    kept = layer.weight.clone()
    handles = [module.register_forward_hook(lambda _module, _args, output: output * candidate.output_scale)]
    if tensor == "weight":
        layer.weight.copy_(candidate.rounded(kept))
    else:
        handles.append(module.register_forward_pre_hook(lambda _module, args: (candidate.rounded(args[0]),)))
    student = F.log_softmax(model(IMAGES), dim=1)
    layer.weight.copy_(kept)
    for handle in handles:
        handle.remove()
    return float(F.kl_div(student, teacher, log_target=True, reduction="batchmean"))


@pytest.mark.parametrize(("kind", "method"), [("resnet", "ewgs"), ("resnet", "dorefa"), ("in place", "lsq")])
def test_the_divergence_is_that_of_the_network_with_one_tensor_quantized(
    kind: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(kind)
    monkeypatch.setattr(measure, "MEMORY", 2**18)  # several batches
    found = measure.measure(model, small.scheme(f"quantizer={method}"), IMAGES, widths=WIDTHS)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert [layer.name for layer in found.layers] == names
    for layer, bits in itertools.product(found.layers[::3], WIDTHS):
        for tensor, losses in (("weight", layer.weight), ("input", layer.input)):
            expected = by_hand(model, layer.name, tensor, bits, method)
            assert losses[bits] == pytest.approx(expected, rel=1e-3, abs=1e-6), (layer.name, tensor, bits)


def test_the_network_stays_as_it_was_and_the_numbers_repeat() -> None:
    model = network("resnet").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(0)
    one = measure.measure(model, small.scheme("quantizer=lsq"), IMAGES, widths=[2])
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert measure.measure(model, small.scheme("quantizer=lsq"), IMAGES, widths=[2]) == one
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn), "no random number is used up"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training and "forward" not in vars(module) for module in model.modules())


def test_counts_are_those_of_the_cost() -> None:
    layers = {layer.name: layer for layer in measure.measure(network("in place"), SCHEME, IMAGES, widths=[8]).layers}
    assert (layers["stem"].weights, layers["stem"].multiply_adds, layers["stem"].inputs) == (108, 36 * 108, 192)
    assert (layers["body"].multiply_adds, layers["body"].inputs) == (2 * 36 * 144, 144), "the layer is called twice"


SCHEME = small.scheme("quantizer=lsq")


def test_the_weighted_error_is_that_of_the_exact_diagonal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauss_newton, "PROBES", 2000)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images = torch.randn(3, 3, 2, 2)
    found = measure.measure(model, SCHEME, images, widths=[2], criterion="curvature").layers[0]
    (layer,) = make_candidates(model, SCHEME, images, [2])
    x, weight = images.flatten(1), layer.weight.detach()
    p = F.softmax(model(images), dim=1).detach()
    error = layer.candidates["weight", 2].rounded(weight).detach() - weight
    # The second derivative by W_ck is p_c (1 - p_c) x_k^2.
    exact = (p * (1 - p)).T[:, None, :] * x.T.square()[None]
    assert found.weight[2] == pytest.approx(float((exact.mean(dim=2) * error.square()).sum() / 2), rel=0.1)
    input_error = layer.candidates["input", 2].rounded(x).detach() - x
    fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    diagonal = torch.einsum("ck,ncd,dk->nk", weight, fisher, weight)
    assert found.input[2] == pytest.approx(float((diagonal * input_error.square()).sum() / 2 / 3), rel=0.1)


def test_both_criteria_agree_where_errors_are_small() -> None:
    model = network("resnet")
    kl, curvature = (
        measure.measure(model, SCHEME, small.batch(64), widths=[8], criterion=criterion)
        for criterion in ("kl", "curvature")
    )
    ratios = [b.input[8] / a.input[8] for a, b in zip(kl.layers, curvature.layers, strict=True)]
    assert all(0.3 < ratio < 3 for ratio in ratios), ratios


def test_progress_ends_at_its_total() -> None:
    steps: list[tuple[int, int]] = []
    measure.measure(network("in place"), SCHEME, IMAGES, widths=WIDTHS, progress=lambda *step: steps.append(step))
    assert steps == [(i + 1, 3 * 2 * 2) for i in range(12)]


class Logits(nn.Module):
    """A network whose output is not one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x)]


def quantized() -> nn.Module:
    model = network("resnet")
    quantize(model, SCHEME)
    return model


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (quantized, {}, "the network is quantized already"),
        (Logits, {}, "the network returns list; expected one tensor of logits"),
        (nn.Flatten, {}, "no Conv2d and no Linear layer that runs"),
        (small.network, {"widths": [0, 2]}, r"widths=\[0, 2\]: expected whole numbers from 1 to 8"),
        (small.network, {"widths": []}, r"widths=\[\]: expected whole numbers"),
        (small.network, {"criterion": "mse"}, "criterion='mse': expected kl or curvature"),
    ],
)
def test_what_cannot_be_measured_is_refused(make: Any, options: Any, message: str) -> None:
    with pytest.raises(SqakdError, match=message):
        measure.measure(make(), SCHEME, IMAGES, **options)


def test_a_tensor_without_a_range_is_named() -> None:
    model = network("in place")
    with torch.no_grad():
        model.get_parameter("body.weight").zero_()
    with pytest.raises(SqakdError, match="layer body, weight at 2 bits: cannot calibrate"):
        measure.measure(model, SCHEME, IMAGES, widths=[2])

"""The comparison of a calibrated network with its float network."""

from __future__ import annotations

import copy

import pytest
import small
import torch
from torch import nn

from sqakd.models.torchvision import torchvision_network
from sqakd.quantization.balance import LOGITS, Balance, balances, describe_imbalance
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize


def without_batch_norm(*overrides: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a SqueezeNet with random weights, quantized and calibrated, and its calibration batch."""
    torch.manual_seed(0)
    model = torchvision_network(arch="squeezenet1_0", weights=None, num_classes=10)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    quantize(model, small.scheme(*overrides))
    calibrate(model, images)
    return model, images


@pytest.mark.parametrize("quantizer", ["ewgs", "lsq", "pact", "dorefa"])
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_networks_with_batch_norm_are_in_balance(quantizer: str, bits: int) -> None:
    found = balances(small.quantized(f"quantizer={quantizer}", f"bits={bits}"), small.batch(8))
    assert [one.place for one in found][-1] == LOGITS
    assert len(found) == 7
    assert describe_imbalance(found) is None


def test_pact_without_batch_norm_is_reported_and_the_output_scale_helps() -> None:
    broken = describe_imbalance(balances(*without_batch_norm("quantizer=pact", "bits=8")))
    assert broken is not None
    assert "times as widely as in the float network" in broken
    helped = without_batch_norm("quantizer=pact", "bits=8", "quantizer.output_scale=true")
    assert describe_imbalance(balances(*helped)) is None
    assert describe_imbalance(balances(*without_batch_norm("quantizer=lsq", "bits=4"))) is None


@pytest.mark.parametrize("override", ["quantizer=pact_released", "quantizer=dorefa_released", "residual_bits=4"])
def test_the_comparison_is_with_the_network_before_it_was_quantized(override: str) -> None:
    """Shared inputs, outer layers that transform, and rounded sums have no part in the float network."""
    model, images = small.network(), small.batch(8)
    floats: list[float] = []
    with torch.no_grad():
        floats.append(float(copy.deepcopy(model).train()(images).std()))
    quantize(model, small.scheme("bits=2", override))
    calibrate(model, images)
    found = {one.place: one.ratio for one in balances(model, images)}
    with torch.no_grad():
        spread = float(copy.deepcopy(model).train()(images).std())
    assert found[LOGITS] == pytest.approx(spread / floats[0], rel=1e-4)


def test_a_network_as_exact_as_the_float_one_has_the_ratio_one() -> None:
    model = small.quantized("quantizer=ewgs", "bits=8")
    assert all(one.ratio == pytest.approx(1, abs=0.2) for one in balances(model, small.batch(8)))


def test_the_comparison_changes_nothing() -> None:
    model = small.quantized()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model.eval()
    outputs = model(small.batch(4))
    balances(model, small.batch(8))
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(outputs, model(small.batch(4)))


def test_values_that_vanish_or_overflow_are_the_worst() -> None:
    assert Balance("a", 0.0, 0.0).factor == Balance("a", float("nan"), 0.0).factor == float("inf")
    assert Balance("a", 0.25, 0.0).factor == 4

"""LSQ with steps that are powers of two: exact in the forward pass, with the gradient of a free step there."""

from __future__ import annotations

import copy
import math

import pytest
import small
import torch

from sqakd.export.integer_input import integer_input
from sqakd.quantization.layers import quant_layers
from sqakd.quantization.quantizers.base import Start
from sqakd.quantization.quantizers.lsq import LearnedStep


def pair(step: float) -> tuple[LearnedStep, LearnedStep]:
    """Return a quantizer whose step becomes a power of two, and one whose step is that power."""
    made = [LearnedStep(bits=3, signed=True, power_of_two=power) for power in (True, False)]
    for quantizer, value in zip(made, (step, 2.0 ** round(math.log2(step))), strict=True):
        quantizer.step.data.fill_(value)
        quantizer.calibrated.fill_(True)
    return made[0], made[1]


@pytest.mark.parametrize("step", [0.3, 0.36, 0.5, 0.7, 0.71, 3.0, 1e-3])
def test_values_and_gradients_are_those_of_the_power(step: float) -> None:
    free, fixed = pair(step)
    xs = [torch.linspace(-4, 4, 101, requires_grad=True) for _ in range(2)]
    for quantizer, x in zip((free, fixed), xs, strict=True):
        (quantizer(x) * torch.linspace(-1, 2, 101)).sum().backward()
    assert torch.equal(free(xs[0]), fixed(xs[1]))
    assert torch.equal(xs[0].grad, xs[1].grad)  # type: ignore[arg-type]
    assert torch.equal(free.step.grad, fixed.step.grad)  # type: ignore[arg-type]
    assert float(free.step.grad) != 0.0  # type: ignore[arg-type]


def test_all_scales_of_a_network_are_powers_of_two_and_are_exported_as_such() -> None:
    network = small.quantized("quantizer=lsq_pow2", "bits=2", "quantizer.per_channel=true").eval()
    for _, layer in quant_layers(network):
        for quantizer, tensor in zip(layer.quantizers, (layer.weight, torch.zeros(1)), strict=True):
            free = quantizer.step.detach().abs()  # type: ignore[operator]
            scale = quantizer.codes(tensor).scale.detach()
            assert torch.equal(torch.frexp(scale).mantissa, torch.full_like(scale, 0.5))
            assert bool(((scale / free).log2().abs() <= 0.5 + 1e-6).all())
        exported = integer_input(copy.deepcopy(layer.input_quantizer))
        assert math.frexp(exported.scale)[0] == 0.5
        assert exported.step == pytest.approx(exported.scale, rel=1e-12)


@pytest.mark.parametrize("start", ["paper", "mse", "max"])
def test_ranges_start_at_a_power_and_max_clips_nothing(start: Start) -> None:
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    quantizer = LearnedStep(bits=3, signed=True, power_of_two=True, start=start)
    quantizer.calibrate(x)
    assert math.frexp(float(quantizer.step.detach()))[0] == 0.5, "as far as possible from where the power changes"
    if start == "max":
        assert float(quantizer.step.detach()) * quantizer.high >= float(x.abs().max())

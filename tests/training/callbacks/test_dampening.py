"""Dampening: the pull towards the grid against its formula, and the tensors that it does not change."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import small
import torch
from torch import Tensor

from sqakd.quantization.layers import quant_layers
from sqakd.training.callbacks.dampening import Dampening, distance, pull
from sqakd.training.task import Task

METHODS = ["ewgs", "lsq", "dorefa", "ewgs_released", "lsq_released", "dorefa_released", "ste"]
BITS = [1, 2, 4]


def distilling(*overrides: str) -> Task:
    overrides = ("recipe.epochs=4", "recipe.lr=0.002", "recipe.batch_size=8", *overrides)
    return small.make_task(small.quantized(*overrides), small.network(seed=7), *overrides)


def total(task: Task) -> float:
    with torch.no_grad():
        found = [distance(layer.weight_quantizer, layer.weight) for _, layer in quant_layers(task.student)]
    return float(sum((d.square().sum() for d in found), torch.zeros(())))


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_pull_of_learned_steps(bits: int, channels: bool) -> None:
    """The pull is 2 (w - s code) where a weight is not clipped, and 0 where it is."""
    model = small.quantized("quantizer=lsq", f"bits={bits}", f"quantizer.per_channel={channels}")
    for _, layer in quant_layers(model):
        layer.weight.data[0] *= 100  # far outside the range
        w, quantizer = layer.weight.detach(), layer.weight_quantizer
        grid = quantizer(w).detach()
        step = quantizer.get_parameter("step").detach()
        low, high = (float(quantizer.grid()[i]) for i in (0, -1))
        inside = (w / step >= low) & (w / step <= high)
        assert bool(inside.any())
        assert not bool(inside.all())
        assert torch.allclose(pull(layer), 2 * (w - grid) * inside, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_pull_of_learned_bounds_is_in_units_of_the_weight(bits: int) -> None:
    """EWGS's values lie in [-1, 1], but the pull is towards points between the bounds l and u."""
    for _, layer in quant_layers(small.quantized("quantizer=ewgs", f"bits={bits}")):
        w, quantizer = layer.weight.detach(), layer.weight_quantizer
        lower, upper = (quantizer.get_parameter(name).detach() for name in ("lower", "upper"))
        points = torch.linspace(float(lower), float(upper), 2**bits)
        nearest = points[(w.flatten()[:, None] - points).abs().argmin(1)].view_as(w)
        inside = (w >= lower) & (w <= upper)
        assert torch.allclose(pull(layer), 2 * (w - nearest) * inside, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", BITS)
def test_measuring_a_distance_does_not_change_the_quantizer(method: str, bits: int) -> None:
    model = small.quantized(f"quantizer={method}", f"bits={bits}")
    for _, layer in quant_layers(model):
        quantizer = layer.weight_quantizer
        state = {name: value.clone() for name, value in quantizer.state_dict().items()}
        expected, rounding, names = quantizer(layer.weight), quantizer.rounding, list(quantizer._modules)
        assert bool(pull(layer).isfinite().all())
        assert quantizer.rounding is rounding
        assert list(quantizer._modules) == names
        assert torch.equal(quantizer(layer.weight), expected)
        assert all(torch.equal(value, state[name]) for name, value in quantizer.state_dict().items())
        assert all(p.grad is None for p in layer.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_step_along_the_pull_reduces_the_distance(method: str) -> None:
    model = small.quantized(f"quantizer={method}", "bits=2")
    for _, layer in quant_layers(model):
        before = distance(layer.weight_quantizer, layer.weight).detach().square().sum()
        layer.weight.data -= 1e-6 * pull(layer)
        after = distance(layer.weight_quantizer, layer.weight).detach().square().sum()
        assert 0 < float(after) < float(before)


def test_pull_is_added_to_the_gradient_and_grows(tmp_path: Path) -> None:
    class Look(pl.Callback):
        def __init__(self) -> None:
            self.gradients: list[list[Tensor]] = []
            self.pulls: list[list[Tensor]] = []
            self.others: list[list[Tensor | None]] = []

        def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
            layers = [layer for _, layer in quant_layers(pl_module.student)]
            weights = [layer.weight for layer in layers]
            self.gradients.append([w.grad.clone() for w in weights if w.grad is not None])
            self.pulls.append([pull(layer) for layer in layers])
            rest = [p for p in pl_module.student.parameters() if all(p is not w for w in weights)]
            self.others.append([None if p.grad is None else p.grad.clone() for p in rest])

    before, after = Look(), Look()
    small.fit(distilling(), tmp_path, callbacks=[before, Dampening(weight=0.5), after])
    steps = len(before.gradients)
    assert steps == 4 * 3
    for n in range(steps):
        factor = 0.5 * (1 - math.cos(math.pi * n / steps)) / 2
        for old, new, toward in zip(before.gradients[n], after.gradients[n], before.pulls[n], strict=True):
            assert torch.allclose(new, old + factor * toward, rtol=1e-4, atol=1e-6)
        for one, other in zip(before.others[n], after.others[n], strict=True):
            assert (one is None and other is None) or torch.equal(cast(Tensor, one), cast(Tensor, other))


def test_dampened_weights_end_nearer_to_their_grid(tmp_path: Path) -> None:
    with_it, without = distilling("quantizer=lsq"), distilling("quantizer=lsq")
    trainer = small.fit(with_it, tmp_path, callbacks=[Dampening(weight=1000.0)])
    small.fit(without, tmp_path)
    assert total(with_it) < 0.8 * total(without)
    assert float(trainer.callback_metrics["train/distance_to_grid"]) == pytest.approx(total(with_it), rel=1e-5)


def test_factor_counts_optimizer_steps() -> None:
    trainer: Any = SimpleNamespace(num_training_batches=5, accumulate_grad_batches=2, max_epochs=4, global_step=6)
    assert Dampening(weight=0.2).factor(trainer) == pytest.approx(0.1), "half of 3 steps in each of 4 epochs"


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_weight_of_zero_or_less_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"^weight=.*: expected a number above 0"):
        Dampening(weight=weight)

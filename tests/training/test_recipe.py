"""Recipe: learning rates against the reference, parameter groups, and errors of wrong values."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import golden_data as golden
import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from sqakd.models.resnet import CifarResNet
from sqakd.quantization.convert import Scheme, quantize
from sqakd.quantization.parameters import split_parameters
from sqakd.quantization.quantizers.ewgs import ActivationBounds, WeightBounds
from sqakd.quantization.quantizers.rounding import StraightThrough
from sqakd.training.recipe import Recipe
from sqakd.training.schedule import CosinePerEpoch, Progress, WarmupCosine, cosine

SCHEDULES = golden.load("07_lr_schedules")
FIELDS: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 64,
    "calibration_batches": 1,
    "accumulate": 1,
    "gradient_clip": None,
    "optimizer": partial(Adam),
    "schedule": CosinePerEpoch(),
    "lr": 1e-3,
    "quantizer_lr": 1e-5,
    "weight_decay": 1e-4,
    "label_smoothing": 0.0,
}


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{**FIELDS, **changes})


def at(epoch: int, epochs: int) -> Progress:
    """Return the progress in the middle of an epoch of ten steps."""
    return Progress(step=10 * epoch + 5, steps_per_epoch=10, epochs=epochs)


def quantized_network() -> nn.Module:
    model = CifarResNet(blocks=1, num_classes=10)
    scheme = Scheme(
        weight=partial(WeightBounds, bits=2, start="paper"),
        input=partial(ActivationBounds, bits=2, start="paper"),
        rounding=StraightThrough,
        per_channel=False,
        output_scale=True,
        first_last="float",
        start=None,
        outer="float",
    )
    quantize(model, scheme)
    return model


@pytest.mark.parametrize("row", range(len(SCHEDULES["cifar_epochs"])))
def test_learning_rates_equal_the_reference(row: int) -> None:
    lr0, epochs = float(SCHEDULES["cifar_lr0"][row]), int(SCHEDULES["cifar_epochs"][row])
    plan = recipe(epochs=epochs, lr=lr0, quantizer_lr=lr0 / 100)
    optimizer = plan.make_optimizer([nn.Parameter(torch.zeros(1))], [nn.Parameter(torch.zeros(1))])
    listed = zip(SCHEDULES["cifar_epoch"][row], SCHEDULES["cifar_lr"][row], strict=True)
    steps = [(int(epoch), float(lr)) for epoch, lr in listed if epoch >= 0]
    assert len(steps) >= 10
    for epoch, lr in steps:
        plan.set_lr(optimizer, at(epoch, epochs))
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr, lr / 100], rel=1e-9, abs=0)


@pytest.mark.parametrize("row", range(len(SCHEDULES["tiny_epochs"])))
def test_warm_up_and_cosine_equal_the_reference(row: int) -> None:
    schedule = WarmupCosine(base=float(SCHEDULES["tiny_base_lr"]), steps=int(SCHEDULES["tiny_warmup_steps"]))
    peak = float(SCHEDULES["tiny_peak_lr"][row])
    steps_per_epoch, epochs = (int(SCHEDULES[f"tiny_{name}"][row]) for name in ("steps_per_epoch", "epochs"))
    listed = zip(SCHEDULES["tiny_step"][row], SCHEDULES["tiny_lr"][row], strict=True)
    steps = [(int(step), float(lr)) for step, lr in listed if step >= 0]
    assert len(steps) >= 10
    for step, lr in steps:
        got = schedule.lr(peak, Progress(step=step, steps_per_epoch=steps_per_epoch, epochs=epochs))
        assert got == pytest.approx(lr, rel=1e-9, abs=1e-12 * peak)


@pytest.mark.parametrize(("base", "steps"), [(-1e-4, 10), (1e-4, 1), (1e-4, 2.5), (float("inf"), 10)])
def test_impossible_warm_up_is_refused(base: float, steps: Any) -> None:
    with pytest.raises(ValueError, match=r"^(base=.*: expected a number|steps=.*: expected a whole number of)"):
        WarmupCosine(base=base, steps=steps)


def test_parameters_with_their_own_decay_have_their_own_group() -> None:
    weight, bound, alpha = (nn.Parameter(torch.tensor([2.0])) for _ in range(3))
    groups = recipe().make_optimizer([weight], [bound, alpha], {alpha: 3e-4}).param_groups
    assert [(g["lr"], g["weight_decay"], g["params"]) for g in groups] == [
        (1e-3, 1e-4, [weight]),
        (1e-5, 0.0, [bound]),
        (1e-5, 3e-4, [alpha]),
    ]


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_label_smoothing_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"^label_smoothing="):
        recipe(label_smoothing=value)


def test_learning_rate_depends_on_the_epoch_alone() -> None:
    """A resumed run gets the same learning rate as one that trained all earlier epochs."""
    plan = recipe(epochs=7)
    optimizers = [plan.make_optimizer([nn.Parameter(torch.zeros(1))], []) for _ in range(2)]
    for epoch in range(6):
        plan.set_lr(optimizers[0], at(epoch, 7))
    plan.set_lr(optimizers[1], at(5, 7))
    assert optimizers[0].param_groups[0]["lr"] == optimizers[1].param_groups[0]["lr"] == 1e-3 * cosine(5, 7)


def test_cosine_decreases_from_one_to_zero() -> None:
    values = [cosine(epoch, 30) for epoch in range(31)]
    assert values[0] == 1
    assert values[30] == pytest.approx(0, abs=1e-15)
    assert all(a > b for a, b in pairwise(values))
    assert np.allclose(np.array(values) + values[::-1], 1)


def test_quantizers_have_their_own_group_without_weight_decay() -> None:
    model = quantized_network()
    network, quantizer = split_parameters(model)
    groups = recipe().make_optimizer(network, quantizer).param_groups
    assert [(g["lr"], g["initial_lr"], g["weight_decay"]) for g in groups] == [(1e-3, 1e-3, 1e-4), (1e-5, 1e-5, 0.0)]
    names = {parameter: name for name, parameter in model.named_parameters()}
    last_parts = {names[p].rsplit(".", 1)[-1] for p in groups[1]["params"]}
    assert last_parts == {"lower", "upper", "output_scale"}
    assert {names[p].rsplit(".", 1)[-1] for p in groups[0]["params"]} == {"weight", "bias"}
    assert len(groups[0]["params"]) + len(groups[1]["params"]) == len(names)


def test_float_network_has_one_group() -> None:
    groups = recipe().make_optimizer(*split_parameters(CifarResNet(blocks=1, num_classes=10))).param_groups
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(1e-3, 1e-4)]


@pytest.mark.parametrize("optimizer", [partial(SGD, momentum=0.9), partial(Adam)])
def test_weights_decay_without_gradient_and_ranges_stay(optimizer: Any) -> None:
    weight, bound = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([2.0]))
    stepper = recipe(optimizer=optimizer, weight_decay=0.1, quantizer_lr=1e-3).make_optimizer([weight], [bound])
    weight.grad, bound.grad = torch.zeros(1), torch.zeros(1)
    stepper.step()
    assert weight.item() < 2
    assert bound.item() == 2


@pytest.mark.parametrize("name", ["batch_size", "calibration_batches", "accumulate"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "10", None])
def test_counts_must_be_whole_and_positive(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}={value!r}: expected a whole number of at least 1"):
        recipe(**{name: value})


@pytest.mark.parametrize("name", ["lr", "quantizer_lr", "weight_decay"])
@pytest.mark.parametrize("value", [-1e-3, float("inf"), float("nan")])
def test_rates_must_be_finite_and_not_negative(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}={value!r}: expected a number >= 0"):
        recipe(**{name: value})


@pytest.mark.parametrize("name", ["lr", "quantizer_lr", "weight_decay"])
def test_zero_is_accepted_as_a_rate(name: str) -> None:
    assert getattr(recipe(**{name: 0.0}), name) == 0

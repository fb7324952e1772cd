"""The KL divergence and the objective: reference numbers, an independent formula, and properties."""

from __future__ import annotations

import golden_data as golden
import numpy as np
import pytest
import small
import torch
from torch import Tensor

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch, FeatureLoss
from sqakd.kd.kl import distillation_kl

CASES = range(int(golden.load("03_distill_kl")["n_cases"]))
TOTAL = golden.load("03_total_loss")  # its rows "combo" are [gamma, alpha, beta, theta, smoothing]


def logits(*shape: int, seed: int, std: float = 3.0) -> Tensor:
    return torch.from_numpy((std * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32))


def log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def formula(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """Return T^2 / N sum p_t (log p_t - log p_s), computed in float64."""
    log_s, log_t = (log_softmax(x.double().numpy() / temperature) for x in (student, teacher))
    return float(temperature**2 * (np.exp(log_t) * (log_t - log_s)).sum() / len(log_s))


@pytest.mark.parametrize("i", CASES)
def test_loss_and_gradient_equal_the_reference(i: int) -> None:
    d = golden.load("03_distill_kl")
    student = torch.from_numpy(d[f"ys_{i:02d}"]).requires_grad_()
    loss = distillation_kl(student, torch.from_numpy(d[f"yt_{i:02d}"]), temperature=float(d["T"][i]))
    (gradient,) = torch.autograd.grad(loss, student)
    assert golden.error(loss, d[f"loss_{i:02d}"]) <= 1e-5
    assert golden.error(gradient, d[f"dys_{i:02d}"]) <= 1e-5


@pytest.mark.parametrize("shape", [(1, 2), (7, 10), (3, 1000)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_loss_equals_an_independent_formula(shape: tuple[int, int], temperature: float) -> None:
    student, teacher = logits(*shape, seed=1), logits(*shape, seed=2)
    expected = formula(student, teacher, temperature)
    assert expected > 0
    # float32 rounds the difference of two log-probabilities near 1, and T^2 enlarges the rounding error.
    allowance = 1e-5 * expected + 1e-7 * temperature**2
    assert abs(float(distillation_kl(student, teacher, temperature=temperature)) - expected) <= allowance


def test_the_loss_grows_with_the_square_of_the_temperature() -> None:
    """Logits proportional to T have the same softened distributions, so only the factor T^2 changes."""
    student, teacher = logits(5, 10, seed=1), logits(5, 10, seed=2)
    once = distillation_kl(student, teacher, temperature=1.0)
    softened = distillation_kl(4 * student, 4 * teacher, temperature=4.0)
    assert float(softened) == pytest.approx(16 * float(once), rel=1e-6)


def test_the_gradient_keeps_its_size_at_high_temperature() -> None:
    """For T -> infinity the gradient tends to (student - teacher, both centred) / (N classes)."""
    student, teacher = logits(5, 10, seed=1).requires_grad_(), logits(5, 10, seed=2)
    (gradient,) = torch.autograd.grad(distillation_kl(student, teacher, temperature=1000.0), student)
    difference = (student - teacher).detach()
    expected = (difference - difference.mean(dim=1, keepdim=True)) / difference.numel()
    assert golden.error(gradient, expected.numpy()) <= 0.02


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_the_loss_and_its_gradient_are_zero_for_equal_distributions(shift: float) -> None:
    student = logits(4, 10, seed=1).requires_grad_()
    loss = distillation_kl(student, student.detach() + shift, temperature=4.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert abs(float(loss.detach())) <= 1e-5
    assert float(gradient.abs().max()) <= 1e-5


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = logits(4, 10, seed=1).requires_grad_(), logits(4, 10, seed=2).requires_grad_()
    distillation_kl(student, teacher, temperature=4.0).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None
    assert student.grad is not None
    assert float(student.grad.abs().max()) > 0


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_huge_logits_stay_finite(temperature: float) -> None:
    """A confident and wrong student has log-probabilities of -1e4 and probabilities of exactly 0."""
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = distillation_kl(student, torch.tensor([[-1e4, 1e4, 0.0]]), temperature=temperature)
    (gradient,) = torch.autograd.grad(loss, student)
    assert float(loss.detach()) == pytest.approx(2e4 * temperature, rel=1e-6)
    assert gradient.isfinite().all()


def test_half_precision_logits_are_compared_in_single_precision() -> None:
    student, teacher = logits(4, 10, seed=1).bfloat16(), logits(4, 10, seed=2).bfloat16()
    loss = distillation_kl(student, teacher, temperature=4.0)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(formula(student.float(), teacher.float(), 4.0), rel=1e-5)


class Constant(FeatureLoss):
    """A feature loss with given terms."""

    def __init__(self, *terms: float) -> None:
        super().__init__()
        self.terms = terms

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        return [torch.tensor(term) for term in self.terms]


@pytest.mark.parametrize("i", range(int(TOTAL["n_cases"])))
def test_objective_equals_the_reference(i: int) -> None:
    """With theta, the feature loss has two terms, as CKTF has: beta times the last one, theta times the others."""
    ce, kl, beta, theta, smoothing = (float(weight) for weight in TOTAL["combo"][i])
    terms = [float(TOTAL["L_kd"])] if not theta else [float(TOTAL["L_crd"]), theta / beta * float(TOTAL["L_crdst"])]
    student = torch.from_numpy(TOTAL["ys"]).requires_grad_()
    objective = small.objective(
        ce=ce,
        kl=kl,
        temperature=float(TOTAL["T"]),
        label_smoothing=smoothing,
        feature=beta,
        feature_loss=Constant(*terms) if beta else None,
    )
    none = torch.empty(0)
    batch = FeatureBatch([], [], none, none, none, {})
    parts = objective(student, torch.from_numpy(TOTAL["yt"]), torch.from_numpy(TOTAL["labels"]).long(), batch)
    (gradient,) = torch.autograd.grad(parts["loss"], student)
    assert golden.error(parts["loss"], TOTAL["loss_total"][i]) <= 1e-5
    assert golden.error(gradient, TOTAL[f"dys_{i:02d}"]) <= 1e-5
    for name, reference in (("ce", "loss_ce"), ("kl", "loss_kl")):
        if name in parts:
            assert golden.error(parts[name], TOTAL[reference][i]) <= 1e-5


def test_a_part_of_weight_zero_is_not_computed() -> None:
    student, teacher, label = logits(4, 10, seed=1), logits(4, 10, seed=2), torch.arange(4)
    unlabelled = small.objective(ce=0.0, kl=1.0, temperature=4.0, label_smoothing=0.0)
    assert (unlabelled.needs_labels, unlabelled.needs_teacher) == (False, True)
    assert unlabelled(student, teacher, None).keys() == {"loss", "kl"}
    alone = small.objective(ce=1.0, kl=0.0, temperature=4.0, label_smoothing=0.0)
    assert (alone.needs_labels, alone.needs_teacher) == (True, False)
    assert alone(student, None, label).keys() == {"loss", "ce"}
    both = small.objective(ce=1.0, kl=1.0, temperature=4.0, label_smoothing=0.0)
    assert both(student, teacher, label).keys() == {"loss", "ce", "kl"}


def test_labels_are_not_read_if_their_weight_is_zero() -> None:
    """Even an invalid label changes nothing."""
    student, teacher = logits(4, 10, seed=1), logits(4, 10, seed=2)
    objective = small.objective(ce=0.0, kl=1.0, temperature=4.0, label_smoothing=0.0)
    assert torch.equal(
        objective(student, teacher, None)["loss"], objective(student, teacher, torch.full((4,), 99))["loss"]
    )


@pytest.mark.parametrize(("ce", "kl"), [(0.0, 0.0), (-1.0, 2.0), (2.0, -1.0), (-1.0, -1.0)])
def test_invalid_weights_are_refused(ce: float, kl: float) -> None:
    with pytest.raises(ValueError, match=f"ce={ce} kl={kl} feature=0.0: expected none negative"):
        small.objective(ce=ce, kl=kl, temperature=4.0, label_smoothing=0.0)


@pytest.mark.parametrize("temperature", [0.0, -4.0, float("nan")])
def test_invalid_temperatures_are_refused(temperature: float) -> None:
    with pytest.raises(SqakdError, match=f"^temperature={temperature}: expected a number from 0.01 to 1000"):
        small.objective(ce=0.0, kl=1.0, temperature=temperature, label_smoothing=0.0)


def test_a_feature_weight_without_a_feature_loss_is_refused() -> None:
    with pytest.raises(SqakdError, match=r"feature=1\.0 is the weight of a feature loss") as error:
        small.objective(feature=1.0)
    assert "kd=at" in explain(error.value)

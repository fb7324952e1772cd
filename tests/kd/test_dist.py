"""DIST against NumPy's correlation, its invariances, and the KL divergence of standardised logits."""

from __future__ import annotations

import numpy as np
import pytest
import small
import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.nn import functional as F

from sqakd.kd.base import FeatureBatch
from sqakd.kd.dist import RelationMatching, relations
from sqakd.kd.kl import distillation_kl
from sqakd.kd.objective import Objective


def logits(n: int = 12, classes: int = 7, seed: int = 0) -> Tensor:
    return 3 * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()


def batch(student: Tensor, teacher: Tensor) -> FeatureBatch:
    return FeatureBatch([], [], student, teacher, torch.arange(len(student)), {})


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_relations_equal_numpys(temperature: float) -> None:
    student, teacher = logits(), logits(seed=1)
    p, q = (torch.softmax(z.double() / temperature, 1).numpy() for z in (student, teacher))
    inter = 1 - np.mean([np.corrcoef(p[n], q[n])[0, 1] for n in range(len(p))])
    intra = 1 - np.mean([np.corrcoef(p[:, c], q[:, c])[0, 1] for c in range(p.shape[1])])
    got = relations(student, teacher, temperature=temperature)
    assert [float(term) for term in got] == pytest.approx([inter, intra], rel=1e-4)
    loss = RelationMatching(inter=2.0, intra=0.5, temperature=temperature)
    weighted = [float(term) for term in loss(batch(student, teacher))]
    assert weighted == pytest.approx([2 * temperature**2 * inter, 0.5 * temperature**2 * intra], rel=1e-4)


def test_the_loss_is_zero_for_the_teacher_s_own_logits_and_positive_for_others() -> None:
    same = relations(logits(), logits(), temperature=4.0)
    other = relations(logits(), logits(seed=1), temperature=4.0)
    opposite = relations(logits(), -logits(), temperature=4.0)
    assert [float(term) for term in same] == pytest.approx([0, 0], abs=1e-5)
    assert all(float(a) < float(b) < float(c) <= 2 for a, b, c in zip(same, other, opposite, strict=True))


def test_the_loss_ignores_the_scale_of_the_probabilities() -> None:
    """Probabilities nearer to uniform keep their correlation; the KL divergence changes."""
    teacher = logits()
    p = torch.softmax(teacher, 1)
    student = (0.1 * p + 0.9 / p.shape[1]).log()
    inter, intra = relations(student, teacher, temperature=1.0)
    assert float(inter) == pytest.approx(0, abs=1e-5)
    assert float(intra) == pytest.approx(0, abs=1e-5)
    assert float(distillation_kl(student, teacher, temperature=1.0)) > 0.1


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (logits(1), logits(1, seed=1)),  # a class has a single image
        (torch.zeros(5, 7), logits(5)),  # a student with constant output
        (logits(5), torch.zeros(5, 7)),
        (1000 * F.one_hot(torch.zeros(5, dtype=torch.long), 7).float(), 1000 * logits(5)),  # saturated
    ],
)
def test_rows_without_variation_have_bounded_gradients(student: Tensor, teacher: Tensor) -> None:
    student = student.clone().requires_grad_()
    loss = torch.stack(RelationMatching(inter=1.0, intra=1.0, temperature=1.0)(batch(student, teacher))).sum()
    (gradient,) = torch.autograd.grad(loss, student)
    assert bool(loss.isfinite())
    assert float(gradient.abs().max()) < 50


@pytest.mark.parametrize("same", ["images", "logits", "everything"])
def test_a_collapsed_student_has_bounded_gradients(same: str) -> None:
    """The student's logits are equal for all images (dead features before a bias), for all classes, or for both."""
    student = logits(8) if same == "logits" else logits(1).expand(8, 7)
    student = torch.zeros(8, 7) if same == "everything" else student
    student = student.mean(dim=1, keepdim=True).expand(8, 7) if same == "logits" else student
    student = student.clone().requires_grad_()
    for loss in (
        torch.stack(RelationMatching(inter=1.0, intra=1.0, temperature=4.0)(batch(student, logits(8, seed=1)))).sum(),
        distillation_kl(student, logits(8, seed=1), temperature=2.0, standardize=True),
    ):
        (gradient,) = torch.autograd.grad(loss, student)
        assert float(gradient.abs().max()) < 1000


def test_gradients_reach_the_student_only() -> None:
    student, teacher = logits().requires_grad_(), logits(seed=1).requires_grad_()
    torch.stack(RelationMatching(inter=1.0, intra=1.0, temperature=4.0)(batch(student, teacher))).sum().backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert float(student.grad.abs().max()) > 0
    assert teacher.grad is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inter": -1.0}, "inter=-1"),
        ({"inter": 0.0, "intra": 0.0}, "at least one positive"),
        ({"temperature": 0.0}, "temperature=0"),
    ],
)
def test_arguments_out_of_range_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RelationMatching(**{"inter": 1.0, "intra": 1.0, "temperature": 4.0} | changes)


def test_dist_works_for_a_network_without_feature_layers() -> None:
    task = small.make_task(small.quantized(), small.network(seed=1), "kd=dist", "model.feature_layers=[]")
    task.build_feature_loss(small.batch(2), training_images=small.TRAIN, labels=None)
    losses = task.eager_losses(small.batch(8), None, torch.arange(8), {})
    assert float(losses["loss"].detach()) > 0


# standardised logits


def test_the_loss_of_standardised_logits_equals_the_paper_s_formula() -> None:
    objective: Objective = instantiate(small.config("kd=lskd").kd)
    assert not objective.needs_labels
    student, teacher = logits(), logits(seed=1)
    losses = objective(student, teacher, None)
    z, t = ((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0) for x in (student, teacher))
    log_p, log_q = F.log_softmax(z / 2, 1), F.log_softmax(t / 2, 1)
    kl = (log_q.exp() * (log_q - log_p)).sum(1).mean()
    assert float(losses["loss"]) == pytest.approx(9 * 4 * float(kl), rel=1e-4)
    scaled = objective(5 * student + 3, 0.1 * teacher - 1, None)
    assert float(scaled["loss"]) == pytest.approx(float(losses["loss"]), rel=1e-3)

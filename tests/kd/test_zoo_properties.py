"""Properties of the feature losses: invariances, precision, and extreme inputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.kd.attention import attention_loss
from sqakd.kd.base import SetupInfo
from sqakd.kd.correlation import correlation_loss
from sqakd.kd.factor import FactorTransfer, factor_loss
from sqakd.kd.fsp import SolutionFlow, flow_losses
from sqakd.kd.hint import Hint, regressor
from sqakd.kd.nst import selectivity_loss
from sqakd.kd.relational import angle_loss, distance_loss
from sqakd.kd.shapes import to_smaller
from sqakd.kd.similarity import similarity_loss
from sqakd.kd.variational import VariationalInformation, gaussian_loss

Loss = Callable[[Tensor, Tensor], Tensor]
PERMUTATION = torch.tensor([3, 0, 2, 1])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def flows(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the FSP loss between a map and a second map with half its channels."""
    return torch.stack(flow_losses([student, student[:, :2]], [teacher, teacher[:, :2]])).sum()


def both(student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = student.flatten(1), teacher.flatten(1)
    return distance_loss(student, teacher) + angle_loss(student, teacher)


COMPARISONS = [attention_loss, selectivity_loss, similarity_loss, both, flows, factor_loss]
STUDENT, TEACHER = random(5, 4, 6, 6), random(5, 4, 6, 6, seed=1)


@pytest.mark.parametrize("loss", COMPARISONS)
def test_the_loss_is_zero_for_equal_features_and_positive_for_others(loss: Loss) -> None:
    student = STUDENT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(student, STUDENT), student)
    assert float(loss(STUDENT, STUDENT)) == pytest.approx(0, abs=1e-6)
    assert float(gradient.abs().max()) <= 1e-5
    assert float(loss(STUDENT, TEACHER)) > 1e-3


def channels_permuted(x: Tensor) -> Tensor:
    return x[:, PERMUTATION]


def mirrored(x: Tensor) -> Tensor:
    return x.flip(3)


def rotated(x: Tensor) -> Tensor:
    turn: Tensor = torch.linalg.qr(random(x[0].numel(), x[0].numel(), seed=3)).Q
    return (x.flatten(1) @ turn).reshape(x.shape)


def larger(x: Tensor) -> Tensor:
    return 3 * x


def moved(x: Tensor) -> Tensor:
    return x + random(*x.shape[1:], seed=4)


def channels_scaled(x: Tensor) -> Tensor:
    return x * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)


@pytest.mark.parametrize(
    ("loss", "change"),
    [
        *((attention_loss, change) for change in (channels_permuted, larger)),
        *((factor_loss, change) for change in (channels_permuted, larger)),
        *((selectivity_loss, change) for change in (channels_permuted, channels_scaled)),
        *((similarity_loss, change) for change in (rotated, larger)),
        *((both, change) for change in (rotated, larger, moved)),
    ],
)
def test_the_loss_ignores_changes_of_the_student_to_which_it_is_invariant(
    loss: Loss, change: Callable[[Tensor], Tensor]
) -> None:
    expected = float(loss(STUDENT, TEACHER))
    assert float(loss(change(STUDENT), TEACHER)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", [attention_loss, selectivity_loss, similarity_loss, flows, factor_loss])
def test_the_loss_ignores_a_mirroring_of_both_maps(loss: Loss) -> None:
    expected = float(loss(STUDENT, TEACHER))
    assert float(loss(mirrored(STUDENT), mirrored(TEACHER))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [*COMPARISONS, lambda s, t: correlation_loss(s.flatten(1), t.flatten(1))])
def test_half_precision_features_are_compared_in_single_precision(loss: Loss) -> None:
    student, teacher = STUDENT.bfloat16(), TEACHER.bfloat16()
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(loss(student.float(), teacher.float())), rel=1e-6)


@pytest.mark.parametrize("loss", [*COMPARISONS, lambda s, t: correlation_loss(s.flatten(1), t.flatten(1))])
def test_a_batch_of_one_image_has_finite_loss_and_gradients(loss: Loss) -> None:
    student = STUDENT[:1].clone().requires_grad_()
    value = loss(student, TEACHER[:1])
    (gradient,) = torch.autograd.grad(value, student)
    assert bool(value.isfinite())
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("loss", [similarity_loss, both, attention_loss, selectivity_loss, flows])
def test_equal_images_and_dead_channels_have_finite_gradients(loss: Loss) -> None:
    student = STUDENT.clone()
    student[1] = student[0]
    student[2] = 0
    student[:, 1] = 0
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(student, TEACHER), student)
    assert bool(gradient.isfinite().all())


def test_nst_equals_an_independent_formula() -> None:
    unit = [(f.flatten(2) / f.flatten(2).norm(dim=2, keepdim=True)).double() for f in (STUDENT, TEACHER)]

    def kernel(a: Tensor, b: Tensor) -> float:
        return float(torch.einsum("nip,njp->nij", a, b).pow(2).mean())

    expected = kernel(unit[0], unit[0]) + kernel(unit[1], unit[1]) - 2 * kernel(unit[0], unit[1])
    assert float(selectivity_loss(STUDENT, TEACHER)) == pytest.approx(expected, rel=1e-5)


def test_the_variance_that_minimises_vid_is_the_mean_squared_error() -> None:
    error = (STUDENT - TEACHER).square().mean(dim=(0, 2, 3))
    variance = error.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(gaussian_loss(STUDENT, variance, TEACHER), variance)
    assert float(gradient.abs().max()) <= 1e-6
    assert float(gaussian_loss(STUDENT, 2 * error, TEACHER)) > float(gaussian_loss(STUDENT, error, TEACHER))


@pytest.mark.parametrize(
    ("student", "teacher", "kernel"),
    [((8, 8), (8, 8), (1, 1)), ((8, 8), (4, 4), (3, 3)), ((4, 4), (8, 8), (4, 4)), ((7, 5), (4, 5), (4, 1))],
)
def test_the_regressor_of_fitnets_returns_the_teacher_s_shape(
    student: tuple[int, int], teacher: tuple[int, int], kernel: tuple[int, int]
) -> None:
    made = regressor(random(2, 3, *student), random(2, 5, *teacher))
    assert made is not None
    assert made[0].kernel_size == kernel
    assert made(random(2, 3, *student)).shape == (2, 5, *teacher)


def test_a_hint_more_than_twice_as_large_is_refused() -> None:
    assert regressor(random(2, 3, 4, 4), random(2, 3, 16, 16)) is None
    loss = Hint(layer=0)
    loss.names = ["layer1"]
    info = SetupInfo(
        student=[random(2, 3, 4, 4)],
        teacher=[random(2, 3, 16, 16)],
        training_images=1,
        labels=None,
    )
    with pytest.raises(SqakdError, match=r"Hint at layer1: .*\[3, 4, 4\] and the teacher's \[3, 16, 16\]"):
        loss.setup(info)


def test_a_hint_layer_out_of_range_is_refused() -> None:
    with pytest.raises(SqakdError, match=r"layer=3: the network's feature_layers are a, b, c; expected .* 0 to 2"):
        Hint(layer=3).taps(["a", "b", "c"], nn.Identity())


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(SqakdError, match="pretrain_epochs=-1"):
        SolutionFlow(pretrain_epochs=-1, pretrain_lr=0.1, quantizers=False)
    with pytest.raises(SqakdError, match="pretrain_lr=nan"):
        SolutionFlow(pretrain_epochs=1, pretrain_lr=float("nan"), quantizers=False)
    with pytest.raises(SqakdError, match="share=0"):
        FactorTransfer(share=0.0, pretrain_epochs=1, pretrain_lr=0.1)
    with pytest.raises(SqakdError, match="variance=0"):
        VariationalInformation(variance=0.0, epsilon=1e-5)


@pytest.mark.parametrize(("size", "smaller"), [((8, 8), (4, 4)), ((9, 6), (3, 2)), ((7, 7), (4, 4))])
def test_maps_are_pooled_to_the_smaller_one(size: tuple[int, int], smaller: tuple[int, int]) -> None:
    one, other = torch.randn(2, 3, *size, dtype=torch.float64), torch.randn(2, 5, *smaller, dtype=torch.float64)
    wanted = nn.functional.adaptive_avg_pool2d(one, smaller)
    for got, kept in (to_smaller(one, other), to_smaller(other, one)[::-1]):
        torch.testing.assert_close(got, wanted)
        assert kept is other

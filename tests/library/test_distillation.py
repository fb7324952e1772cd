"""`distillation_loss` and `Distiller`."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import library_parts
import pytest
import torch
from torch import Tensor, nn

import sqakd
from sqakd.kd.attention import AttentionTransfer
from sqakd.kd.kl import distillation_kl
from sqakd.library.presets import composed

WORD: Any = "kl"
OUTPUTS: Any = {"a": 1}
LAYERS = ["0", "1", "3", "5:input"]


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_loss_of_logits_is_that_of_a_run() -> None:
    student, teacher = logits(4, 5), logits(4, 5, seed=1)
    temperature = composed("kd=sqakd").config["kd"]["temperature"]
    assert sqakd.distillation_loss(student, teacher) == distillation_kl(student, teacher, temperature=temperature)


def test_the_loss_of_maps_is_the_mean_over_images_and_positions() -> None:
    student, teacher = logits(2, 5, 3, 4), logits(2, 5, 3, 4, seed=1)
    each = [sqakd.distillation_loss(student[:, :, i, j], teacher[:, :, i, j]) for i in range(3) for j in range(4)]
    assert torch.isclose(sqakd.distillation_loss(student, teacher), torch.stack(each).mean())


def test_a_loop_of_one_s_own_brings_the_student_closer() -> None:
    teacher, images = library_parts.network(), library_parts.images()
    student = sqakd.quantize(teacher, "lsq", bits=3)
    sqakd.calibrate(student, images)
    student.eval()  # batch norm as in the teacher
    distiller = sqakd.Distiller(teacher)
    network, quantizer = sqakd.split_parameters(student)
    optimizer = torch.optim.Adam([{"params": network, "lr": 1e-3}, {"params": quantizer, "lr": 1e-3}])
    losses = []
    for _ in range(40):
        loss = distiller(images, student(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not teacher.training
    assert list(distiller.parameters()) == []


def test_a_feature_loss_is_added_with_its_weight() -> None:
    teacher, images = library_parts.network().eval(), library_parts.images()
    student = library_parts.network(seed=1)
    own = {"student": student, "layers": LAYERS, "example": images}
    distiller = sqakd.Distiller(teacher, feature_loss="at", **own)  # type: ignore[arg-type]
    given = sqakd.Distiller(teacher, feature_loss=AttentionTransfer(), feature_weight=1.0, **own)  # type: ignore[arg-type]
    output = student(images)
    plain = sqakd.distillation_loss(output, teacher(images))
    part = given(images, output) - plain
    assert part > 0
    weight = composed("kd=at").config["kd"]["feature"]
    assert torch.isclose(distiller(images, output), plain + weight * part, rtol=1e-3)


def test_hooks_are_removed_on_request(tmp_path: Path) -> None:
    teacher, images = library_parts.network(), library_parts.images()
    student: nn.Module = library_parts.network(seed=1)
    distiller = sqakd.Distiller(teacher, feature_loss="at", student=student, layers=LAYERS, example=images)
    distiller(images, student(images))
    distiller.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for net in (teacher, student) for m in net.modules())
    torch.save(student, tmp_path / "student.pt")
    sqakd.Distiller(teacher).remove()  # there are none


@pytest.mark.parametrize("images", [torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 2, 2)])
def test_a_refused_example_leaves_the_networks_as_they_were(images: Tensor) -> None:
    teacher, student = library_parts.network().train(), library_parts.network(seed=1)
    with pytest.raises(sqakd.SqakdError, match="the network cannot take images of shape"):
        sqakd.Distiller(teacher, feature_loss="at", student=student, layers=LAYERS, example=images)
    with pytest.raises(sqakd.SqakdError):
        sqakd.Distiller(teacher, loss="mse")  # type: ignore[arg-type]
    assert teacher.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for net in (teacher, student) for m in net.modules())


def test_a_feature_loss_does_not_change_its_teacher() -> None:
    teacher, student = library_parts.network().train(), library_parts.network(seed=1)
    before = copy.deepcopy(teacher.state_dict())
    sqakd.Distiller(teacher, feature_loss="at", student=student, layers=LAYERS, example=library_parts.images())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_a_memory_bank_is_updated_by_the_next_call() -> None:
    teacher, images = library_parts.network(), library_parts.images()
    student = library_parts.network(seed=1)
    updates = []

    class Counting(AttentionTransfer):
        def after_backward(self) -> None:
            updates.append(1)

    distiller = sqakd.Distiller(
        teacher, feature_loss=Counting(), student=student, layers=LAYERS, example=images, training_images=8
    )
    with pytest.raises(sqakd.SqakdError, match="needs index="):
        distiller(images, student(images))
    for calls in range(3):
        distiller(images, student(images), torch.arange(8)).backward()
        assert len(updates) == calls


def test_bad_logits_are_refused() -> None:
    for student, teacher in (((4, 5), (4, 6)), ((4,), (4,)), ((4, 5, 2), (4, 5))):
        with pytest.raises(sqakd.SqakdError, match=re.escape(f"{list(student)} and the teacher's {list(teacher)}")):
            sqakd.distillation_loss(logits(*student), logits(*teacher))
    with pytest.raises(sqakd.SqakdError, match="temperature=0: expected"):
        sqakd.distillation_loss(logits(4, 5), logits(4, 5), temperature=0)


def test_a_teacher_on_another_device_is_refused() -> None:
    distiller = sqakd.Distiller(library_parts.network().to("meta"))
    with pytest.raises(sqakd.SqakdError, match="the images are on cpu and the teacher on meta"):
        distiller(library_parts.images(), logits(8, 5))


def test_bad_losses_are_refused() -> None:
    teacher, images = library_parts.network(), library_parts.images()
    refused: list[tuple[Any, str]] = [
        (lambda student, _: student, "the loss has shape [8, 5]; expected a scalar"),
        (lambda *_: 1.0, "the loss has float; expected a scalar"),
        (lambda s, t: (s - t).mean() / 0, "at call 1"),
        (lambda s, t: (s - t).mean() * float("nan"), "the loss is nan at call 1"),
    ]
    for loss, message in refused:
        with pytest.raises(sqakd.SqakdError, match=re.escape(message)):
            sqakd.Distiller(teacher, loss=loss)(images, logits(8, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"feature_loss": "at"}, "expected student=, layers= and example="),
        ({"feature_loss": "ta", "student": 1}, "found no feature loss 'ta'; expected at, "),
        ({"feature_loss": "sqakd", "student": 1}, "found no feature loss 'sqakd'"),
        ({"feature_loss": "crd", "student": 1}, "ContrastiveDistillation reads labels"),
        ({"feature_loss": "ft", "student": 1}, "has a training stage of its own"),
        ({"feature_loss": "at", "student": 1, "layers": ["0"]}, "its feature layers are ['0']; expected at least 3"),
        ({"feature_loss": "at", "student": 1, "layers": ["0", "8", "5"]}, "has no layer '8'"),
        ({"feature_loss": "at", "student": 1, "feature_weight": -1.0}, "feature_weight=-1.0: expected"),
    ],
)
def test_bad_feature_losses_are_refused(arguments: dict[str, Any], message: str) -> None:
    if "student" in arguments:
        arguments = {
            "layers": LAYERS,
            **arguments,
            "student": library_parts.network(),
            "example": library_parts.images(),
        }
    with pytest.raises(sqakd.SqakdError, match=re.escape(message)):
        sqakd.Distiller(library_parts.network(), **arguments)


def test_the_student_has_to_run_before_each_call() -> None:
    teacher, images = library_parts.network(), library_parts.images()
    student: nn.Module = library_parts.network(seed=1)
    distiller = sqakd.Distiller(teacher, feature_loss="at", student=student, layers=LAYERS, example=images)
    output = student(images)
    distiller(images, output)
    with pytest.raises(sqakd.SqakdError, match="the student has not run since the last call"):
        distiller(images, output)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: sqakd.Distiller(library_parts.network(), loss=WORD), "loss='kl': expected a function"),
        (lambda: sqakd.distillation_loss(OUTPUTS, OUTPUTS), "the outputs are dict; expected logits, or a loss="),
        (lambda: sqakd.distillation_loss(logits(4, 1), logits(4, 1)), "at least one image and two classes"),
        (lambda: sqakd.distillation_loss(logits(0, 5), logits(0, 5)), "at least one image and two classes"),
        (lambda: feature_distiller(7), "feature_loss=7: expected a name under conf/kd, or a FeatureLoss"),
    ],
)
def test_nonsense_is_refused(action: Callable[[], Any], message: str) -> None:
    with pytest.raises(sqakd.SqakdError, match=re.escape(message)):
        action()


def feature_distiller(loss: Any) -> sqakd.Distiller:
    teacher = library_parts.network()
    student, images = library_parts.network(seed=1), library_parts.images()
    return sqakd.Distiller(teacher, feature_loss=loss, student=student, layers=LAYERS, example=images)


def test_a_distiller_leaves_random_numbers_and_gradients_of_the_program_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    teacher, student = library_parts.network(), library_parts.network(seed=1)
    torch.set_rng_state(before)
    sqakd.Distiller(teacher, feature_loss="at", student=student, layers=LAYERS, example=library_parts.images())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.requires_grad for parameter in teacher.parameters())

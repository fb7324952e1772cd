"""Set-up of a feature loss: hooks on the layers of both networks, and parameters for the shapes of their outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureLoss, SetupInfo
from sqakd.kd.hooks import Features
from sqakd.quantization.probe import in_mode

FEWEST_LAYERS = 3


def tap(loss: FeatureLoss, network: nn.Module, layers: Sequence[str], *, owner: str) -> Features:
    """Register hooks on the layers of a network that a feature loss reads.

    Args:
        loss: chooses among the layers.
        network: student or teacher.
        layers: names of the network's feature layers.
        owner: name of the network in error messages: "student" or "teacher".

    Raises:
        SqakdError: if the loss reads layers inside the network and there are too few, or one does not exist.
    """
    if loss.uses_layers and len(layers) < FEWEST_LAYERS:
        raise SqakdError(
            f"this kd reads layers of the {owner}, and its feature layers are {list(layers)}; expected at least"
            f" {FEWEST_LAYERS}: the first map, the map of each stage and the pooled vector",
            topic="feature_layers.too_few",
        )
    return Features(network, loss.taps(layers, network), owner=owner)


def tap_both(
    loss: FeatureLoss,
    student: nn.Module,
    student_layers: Sequence[str],
    teacher: nn.Module,
    teacher_layers: Sequence[str],
) -> tuple[Features, Features]:
    """Register hooks on both networks; see `tap`. If one of them is refused, no hook is left on the other.

    Raises:
        SqakdError: as `tap`.
    """
    of_student = tap(loss, student, student_layers, owner="student")
    try:
        return of_student, tap(loss, teacher, teacher_layers, owner="teacher")
    except SqakdError:
        of_student.remove()
        raise


def build(
    loss: FeatureLoss,
    features: tuple[Features, Features],
    *,
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    training_images: int,
    labels: Tensor | None,
    seed: int,
) -> None:
    """Let a feature loss make its parameters for the shapes of the features.

    Args:
        loss: feature loss without parameters.
        features: hooks of student and teacher.
        student: network with the first hooks; it runs once in evaluation mode, and its modes are restored.
        teacher: network with the second hooks, in evaluation mode.
        images: a few normalised images [N, C, H, W].
        training_images: size of the training set.
        labels: [training_images], or None.
        seed: of the initial parameters.

    Raises:
        SqakdError: if the features of student and teacher cannot be compared.
    """
    with torch.no_grad(), in_mode(student, training=False), in_mode(teacher, training=False):
        student(images)
        teacher(images)
    of_student, of_teacher = features
    if len(of_student.taps) != len(of_teacher.taps):
        raise SqakdError(
            f"this kd compares layers in pairs, but found {len(of_student.taps)} layers of the student"
            f" ({', '.join(of_student.taps)}) and {len(of_teacher.taps)} of the teacher ({', '.join(of_teacher.taps)})",
            topic="feature_layers.unequal",
        )
    loss.names = of_student.taps
    torch.manual_seed(seed)
    loss.setup(
        SetupInfo(
            student=of_student.take(),
            teacher=of_teacher.take(),
            training_images=training_images,
            labels=labels,
        )
    )

"""The training task of one run, with its feature loss set up for the shapes of both networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sqakd.app.parts import Parts
from sqakd.kd.objective import Objective
from sqakd.runs.spec import Spec
from sqakd.training.task import Task

PROBE_IMAGES = 2  # the shapes of features do not depend on the number of images


def make_task(
    spec: Spec, parts: Parts, student: nn.Module, teacher: nn.Module | None, objective: Objective, classes: int
) -> Task:
    """Construct the task that trains a student."""
    trainer = spec.config["trainer"]
    return Task(
        student=student,
        teacher=teacher,
        objective=objective,
        recipe=parts.recipe,
        num_classes=classes,
        labelled=parts.data.labelled,
        seed=spec.seed,
        compile=trainer["compile"],
        channels_last=trainer["channels_last"],
        feature_layers=spec.config["model"]["feature_layers"],
        teacher_feature_layers=_teacher_feature_layers(spec, parts),
    )


def set_up_feature_loss(task: Task, parts: Parts, device: torch.device) -> None:
    """Let the feature loss, if there is one, construct its parameters for the networks' shapes.

    Raises:
        SqakdError: if the features of student and teacher are not compatible.
    """
    task.build_feature_loss(
        parts.data.calibration_batch(1)[:PROBE_IMAGES].to(device),
        training_images=len(parts.data.train_images),
        labels=parts.data.train_labels,
    )


def _teacher_feature_layers(spec: Spec, parts: Parts) -> Any:
    """Return the teacher's own feature layers if they were given or it is another network, else the student's."""
    if any(override.lstrip("+").startswith("teacher.feature_layers=") for override in spec.overrides):
        return spec.config["teacher"]["feature_layers"]
    same_network = parts.teacher_model["net"] == spec.config["model"]["net"]
    return spec.config["model" if same_network else "teacher"]["feature_layers"]

"""The float network that a student starts from and learns from: loaded, found under runs/, or trained first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sqakd.advice import explain
from sqakd.app.compose import changes, compose_spec
from sqakd.app.console import say
from sqakd.app.overrides import float_run_overrides
from sqakd.app.parts import Parts, make_network, quantize_network
from sqakd.errors import SqakdError
from sqakd.runs.checkpoint import CheckpointError, load_weights, num_classes, restore
from sqakd.runs.folder import RunError, RunFolder
from sqakd.runs.record import Record
from sqakd.runs.spec import Spec
from sqakd.training.trainer import top1

# Trains one run unless it is finished; passed in because the training of a student begins with its teacher's.
Train = Callable[[Spec], Record]


@dataclass(frozen=True)
class FloatWeights:
    """Trained weights of a float network.

    Attributes:
        tensors: by name.
        source: the file they are from.
        record: of the run that trained them, if its scores are about the same images; else None.
    """

    tensors: dict[str, Tensor]
    source: str
    record: Record | None


@dataclass(frozen=True)
class Networks:
    """The networks of one training.

    Attributes:
        student: with its initial weights; quantized but not yet calibrated, unless the run is a float run.
        teacher: float, trained; None for a float run.
        classes: width of the logits.
        float_run: record of the float run that the student starts from, if known.
    """

    student: nn.Module
    teacher: nn.Module | None
    classes: int
    float_run: Record | None


def teacher_model(spec: Spec) -> Mapping[str, Any]:
    """Return the `model` node of the teacher's own float run."""
    model: Mapping[str, Any] = compose_spec(float_run_overrides(spec, "model@teacher")).config["model"]
    return model


def find_networks(spec: Spec, parts: Parts, network: nn.Module, train: Train) -> Networks:
    """Give a float network its weights, and make teacher and student of it.

    Args:
        spec: of the student.
        parts: of the student, with images loaded.
        network: the student's float network; becomes the teacher if both have the same architecture.
        train: trains the float run if it is not finished.

    Raises:
        SqakdError: if the teacher does not fit the network or the data set.
    """
    if parts.is_float:
        assert parts.data.num_classes is not None
        return Networks(network, None, parts.data.num_classes, None)
    weights = _teacher_weights(spec, parts, train)
    classes = num_classes(weights.tensors)
    if parts.data.num_classes not in (None, classes):
        raise CheckpointError(
            f"the teacher ({weights.source}) has {classes} classes, but the data set has {parts.data.num_classes};"
            f" choose a teacher trained on these classes, or another data set"
        )
    model, image_shape = teacher_model(spec), parts.data.image_shape
    same = model["net"] == spec.config["model"]["net"]
    built = same and classes == parts.data.num_classes
    teacher = network if built else make_network(model, image_shape, classes)
    restore(teacher, weights.tensors, source=weights.source)
    start = weights
    if same:
        student = copy.deepcopy(teacher)
    else:
        start = _float_run_weights(spec, "model", train)
        student = make_network(spec.config["model"], image_shape, classes)
        restore(student, start.tensors, source=start.source)
    if parts.scheme is not None:
        quantize_network(student, parts.scheme, spec.config["model"]["first"], image_shape, quietly=True)
    return Networks(student, teacher, classes, start.record)


def report_teacher(spec: Spec, parts: Parts, teacher: nn.Module, device: torch.device) -> None:
    """Measure the teacher before the student starts: a wrong teacher should not cost a night."""
    if parts.data.labelled:
        say(f"teacher {teacher_model(spec)['name']}: top-1 {100 * top1(teacher, parts.data, device):.2f}%")


def _teacher_weights(spec: Spec, parts: Parts, train: Train) -> FloatWeights:
    file = spec.config["teacher"]["checkpoint"]
    if file is not None:
        tensors, facts = load_weights(Path(file))
        return FloatWeights(tensors, str(file), _record_of_same_images(facts.get("record"), spec))
    if not parts.data.labelled:
        raise SqakdError(
            "a teacher cannot be trained on images without labels; type teacher.checkpoint=FILE"
            " (weights of the float network chosen by model@teacher=)"
        )
    return _float_run_weights(spec, "model@teacher", train)


def _float_run_weights(spec: Spec, role: str, train: Train) -> FloatWeights:
    """Return the weights of a float run: found under runs/, or trained now, exactly once."""
    own = compose_spec(float_run_overrides(spec, role))
    folder = RunFolder.of_spec(own)
    if not folder.finished:
        say(f"the float network comes first: {folder.path}")
    try:
        record = train(own)
    except RunError as error:
        raise RunError(
            f"{explain(error)} (it is this student's float run; model.name=ANOTHER_NAME renames both)"
        ) from error
    return FloatWeights(load_weights(folder.weights)[0], str(folder.weights), record)


def _record_of_same_images(plain: Mapping[str, Any] | None, spec: Spec) -> Record | None:
    """Return a checkpoint's own record if its scores are about this data set; others are no float reference here."""
    if plain is None:
        return None
    record = Record.from_dict(plain)
    if record.choices["dataset"] != spec.choices["dataset"]:
        return None
    mine, its = ({k: v for k, v in c.items() if k.startswith("dataset.")} for c in (changes(spec), record.changes))
    return record if mine == its else None

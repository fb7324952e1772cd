"""The float network that a student starts from and learns from: loaded, found under runs/, or trained first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sqakd.advice import explain
from sqakd.app.checks import check_length
from sqakd.app.compose import changes, compose_spec, make
from sqakd.app.console import FLOAT_FIRST, say
from sqakd.app.overrides import float_run_overrides
from sqakd.app.parts import Parts, make_network, with_inputs, without_pretrained
from sqakd.app.precision import available_float_run, precision_note, precision_of
from sqakd.app.schema import check_config
from sqakd.errors import SqakdError
from sqakd.kd.objective import Objective
from sqakd.runs.checkpoint import CheckpointError, restore
from sqakd.runs.folder import RunError, RunFolder
from sqakd.runs.foreign import find_weights
from sqakd.runs.layout import Layout
from sqakd.runs.record import Record
from sqakd.runs.run_weights import load_run_weights
from sqakd.runs.spec import Spec
from sqakd.training.confidence import confidence
from sqakd.training.evaluate import top1

NO_LABELS = (
    "a teacher cannot be trained on images without labels; use teacher.checkpoint=FILE"
    " (weights of the float network chosen by model@teacher=)"
)
# Trains one run unless it is finished; passed in because the training of a student begins with its teacher's.
Train = Callable[[Spec], Record]


@dataclass(frozen=True)
class FloatWeights:
    """Trained weights of a float network.

    Attributes:
        tensors: by name.
        source: the file they are from.
        classes: width of the logits.
        record: of the run that trained them, if its scores are about the same images; else None.
        precision: of that run, if it is known.
    """

    tensors: dict[str, Tensor]
    source: str
    classes: int
    record: Record | None
    precision: str | None = None


@dataclass(frozen=True)
class Networks:
    """The networks of one training.

    Attributes:
        student: with its initial weights, float.
        teacher: float, trained; None for a float run.
        classes: width of the logits.
        float_run: record of the float run that the student starts from, if known.
        float_precision: the precision of that run, if known.
    """

    student: nn.Module
    teacher: nn.Module | None
    classes: int
    float_run: Record | None
    float_precision: str | None = None


def needed_float_runs(spec: Spec, objective: Objective, teacher_model: Mapping[str, Any]) -> list[str]:
    """List the float runs that a run needs first, by the role of their network: "model@teacher", "model" or both.

    Args:
        spec: of the run.
        objective: of the run.
        teacher_model: the `model` node of the teacher's own float run.
    """
    if spec.config["quantizer"] is None and not objective.needs_teacher:
        return []  # a float run itself
    roles = [] if spec.config["teacher"]["checkpoint"] is not None else ["model@teacher"]
    return roles if teacher_model["net"] == spec.config["model"]["net"] else [*roles, "model"]


def check_float_runs(spec: Spec, parts: Parts) -> None:
    """Refuse a student whose float runs would be refused, before anything is written.

    Raises:
        SqakdError: naming the float run.
    """
    for role in needed_float_runs(spec, parts.objective, parts.teacher_model):
        own = _float_run(spec, parts, role)
        check_config(own)
        check_length(own, ())
        with _named_as_float_run():
            RunFolder.of_spec(own).check(with_inputs(own, parts.data))


def load_teacher_file(spec: Spec, parts: Parts) -> FloatWeights | None:
    """Load the teacher's weights from the file that the configuration names, and try them on the teacher's network.

    A file that does not fit is so refused before anything is written.

    Returns:
        The weights; None if the teacher is a float run, or there is none.

    Raises:
        SqakdError: if the file cannot be read or does not fit, or unlabelled images come without one.
    """
    file = spec.config["teacher"]["checkpoint"]
    if parts.is_float:
        return None
    if file is None:
        if parts.data.labelled:
            return None
        raise SqakdError(NO_LABELS)
    found = find_weights(Path(file), _teacher_layout(parts))
    if parts.data.num_classes not in (None, found.classes):
        raise CheckpointError(
            f"the teacher ({file}) has {found.classes} classes, but the data set has {parts.data.num_classes}; use a"
            f" teacher trained on these classes, or another data set"
        )
    if len(parts.data.class_names) not in (0, found.classes):
        raise CheckpointError(
            f"dataset.classes has {len(parts.data.class_names)} names, but the teacher ({file}) has {found.classes}"
            f" classes; use one name for each logit of the teacher, in their order"
        )
    network = make_network(parts.teacher_model, parts.data.image_shape, found.classes)
    restore(network, found.tensors, source=str(file))
    if found.note:
        say(found.note)
    return FloatWeights(
        found.tensors, str(file), found.classes, _record_of_same_images(found.facts.get("record"), spec)
    )


def find_networks(
    spec: Spec, parts: Parts, network: nn.Module, file_weights: FloatWeights | None, train: Train
) -> Networks:
    """Give a float network its weights, and make teacher and student of it.

    Args:
        spec: of the student.
        parts: of the student, with images loaded.
        network: the student's float network; becomes the teacher if both have the same architecture.
        file_weights: the teacher's weights from a file; None to find or train the teacher's float run.
        train: trains a float run if it is not finished.

    Raises:
        SqakdError: if the teacher does not fit the network or the data set.
    """
    if parts.is_float:
        assert parts.data.num_classes is not None
        return Networks(network, None, parts.data.num_classes, None)
    classes, image_shape = file_weights.classes if file_weights else parts.data.num_classes, parts.data.image_shape
    assert classes is not None  # unlabelled images come with a file
    teacher_weights = file_weights or _float_run_weights(spec, parts, "model@teacher", classes, train)
    same_network = parts.teacher_model["net"] == spec.config["model"]["net"]
    reusable = same_network and classes == parts.data.num_classes
    teacher = network if reusable else make_network(parts.teacher_model, image_shape, classes)
    restore(teacher, teacher_weights.tensors, source=teacher_weights.source)
    if same_network:
        student, student_weights = copy.deepcopy(teacher), teacher_weights
    else:
        student_weights = _float_run_weights(spec, parts, "model", classes, train)
        student = make_network(spec.config["model"], image_shape, classes)
        restore(student, student_weights.tensors, source=student_weights.source)
    return Networks(student, teacher, classes, student_weights.record, student_weights.precision)


def report_teacher(parts: Parts, teacher: nn.Module, device: torch.device) -> None:
    """Measure the teacher before the student starts: a wrong teacher should not cost a night.

    Raises:
        SqakdError: if its logits are not finite.
    """
    name = parts.teacher_model["name"]
    try:
        if parts.data.labelled:
            say(f"teacher {name}: top-1 {100 * top1(teacher, parts.data, device):.2f}%")
            return
        found = confidence(teacher, parts.data, device)
    except SqakdError as error:
        raise SqakdError(f"the teacher {name}: {error}") from error
    say(f"teacher {name} on {found.images} validation images: {found.text()}")
    if problem := found.problem():
        advice = "; hold out more, e.g. with dataset.val_fraction=0.3" if parts.data.val_source else ""
        say(f"warning: {problem}{advice}")


def _teacher_layout(parts: Parts) -> Layout:
    """Return the layout of the teacher's network, whatever its number of classes."""
    net = without_pretrained(parts.teacher_model["net"])
    return Layout.of(lambda classes: make(net, "model.net", num_classes=classes))


def _float_run(spec: Spec, parts: Parts, role: str) -> Spec:
    """Return the specification of the float run of one of a student's networks, "model@teacher" or "model"."""
    own = parts.teacher_run if role == "model@teacher" else compose_spec(float_run_overrides(spec, role))
    return available_float_run(own, with_inputs(own, parts.data).inputs)


def _float_run_weights(spec: Spec, parts: Parts, role: str, classes: int, train: Train) -> FloatWeights:
    """Return the weights of a float run: found under runs/, or trained now, exactly once."""
    own = _float_run(spec, parts, role)
    folder = RunFolder.of_spec(own)
    if not folder.finished:
        say(f"{FLOAT_FIRST}{folder.path}")
    if note := precision_note(spec, own):
        say(note)
    with _named_as_float_run():
        record = train(own)
    tensors, _ = load_run_weights(folder, record)
    return FloatWeights(tensors, str(folder.weights), classes, record, precision_of(own))


@contextmanager
def _named_as_float_run() -> Iterator[None]:
    """Add to an error about a run's folder that the run is a student's float run.

    Raises:
        RunError: in place of the original one.
    """
    try:
        yield
    except RunError as error:
        raise RunError(
            f"{explain(error)} (it is this student's float run; model.name=ANOTHER_NAME renames both)"
        ) from error


def _record_of_same_images(plain: Mapping[str, Any] | None, spec: Spec) -> Record | None:
    """Return a checkpoint's own record if its scores are about this data set; others are no float reference here."""
    try:
        record = None if plain is None else Record.from_dict(plain)
    except SqakdError:  # a foreign file may have an entry of that name
        return None
    if record is None or record.dataset != spec.choices["dataset"]:
        return None
    here, there = ({k: v for k, v in c.items() if k.startswith("dataset.")} for c in (changes(spec), record.changes))
    return record if here == there else None

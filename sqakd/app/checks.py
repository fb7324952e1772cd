"""Checks of a run before anything is written: whatever cannot work is refused here."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from sqakd.allocation.budget import Budget
from sqakd.app.budget import check_budget
from sqakd.app.compose import located, make
from sqakd.app.parts import Parts, make_network, quantize_network
from sqakd.app.tasks import make_task, set_up_feature_loss
from sqakd.errors import SqakdError
from sqakd.quantization.convert import Scheme
from sqakd.randomness import stream_seed
from sqakd.runs.spec import LAYER_BITS, RESIDUAL_BITS, Spec, is_auto
from sqakd.training.callbacks.bits_schedule import BitsSchedule
from sqakd.training.callbacks.ema import WeightAverage
from sqakd.training.trainer import check_trainer_config


def _check_automatic(spec: Spec, scheme: Scheme | None, budget: Budget) -> None:
    """Refuse a choice of bits that cannot work.

    Raises:
        SqakdError: naming the override that helps.
    """
    if scheme is None:
        raise SqakdError("bits=auto has no effect with quantizer=none, which trains the float network; omit bits")
    if not budget.limited:
        raise SqakdError("bits=auto needs a budget; use for instance budget.size=40kB or budget.average_bits=2.5")
    if given := [key for key in LAYER_BITS if spec.config[key]]:
        raise SqakdError(f"bits=auto chooses the bits of each layer; remove {given[0]}=")
    if scheme.outer == "released":
        raise SqakdError("bits=auto chooses bits for each layer, but layers share inputs with quantizer.outer=released")


def check_bits(spec: Spec, scheme: Scheme | None) -> None:
    """Refuse bits that no quantizer takes.

    Raises:
        SqakdError: naming the override that helps.
    """
    budget: Budget = make(spec.config["budget"], "budget")
    for key in (*LAYER_BITS, RESIDUAL_BITS):
        if spec.config[key] not in (None, {}) and scheme is None:
            raise SqakdError(f"{key} has no effect with quantizer=none, which trains the float network; remove {key}=")
        if spec.config[key] and key not in spec.config["quantizer"]:
            name = spec.choices["quantizer"]
            raise SqakdError(f"{key} has no effect with quantizer={name}; add the line '{key}: ${{{key}}}' to its file")
    if is_auto(spec.config):
        _check_automatic(spec, scheme, budget)
    elif budget.limited:
        raise SqakdError(f"budget.{budget.text().split('=')[0]} has no effect without bits=auto; add it")
    if scheme is not None:
        scheme.check()
    elif spec.bits != (32, 32):
        raise SqakdError(
            f"quantizer=none trains the float network, but bits are w{spec.bits[0]} a{spec.bits[1]}; omit bits, or"
            f" choose a quantizer, e.g. quantizer=ewgs"
        )


def check_parts(spec: Spec, parts: Parts) -> None:
    """Refuse parts that contradict each other.

    Raises:
        SqakdError: naming the override that helps.
    """
    make(spec.config["teacher"]["recipe"], "teacher.recipe")
    with located("trainer"):
        check_trainer_config(parts.recipe, spec.config["trainer"])
    check_length(spec, parts.addons)
    check_schedules(parts.recipe.epochs, parts.addons)
    check_bits(spec, parts.scheme)
    needy = [name for name, part in parts.addons.items() if getattr(part, "needs_quantizer", False)]
    if needy and parts.scheme is None:
        raise SqakdError(
            f"plus={needy[0]} needs quantized weights, but quantizer=none has none; remove plus={needy[0]}"
        )


def check_schedules(epochs: int, addons: Mapping[str, Any]) -> None:
    """Refuse two add-ons that set the bits of each epoch, or one for which the training is too short.

    Args:
        epochs: of the training, without a stage before it.
        addons: by name.

    Raises:
        SqakdError: naming the add-ons.
    """
    schedules = {name: part for name, part in addons.items() if isinstance(part, BitsSchedule)}
    if len(schedules) > 1:
        raise SqakdError(f"plus={' and plus='.join(schedules)} both set the bits of each epoch; remove one of them")
    for name, part in schedules.items():
        with located(f"plus.{name}"):
            part.check_epochs(epochs)


def check_length(spec: Spec, addons: Collection[str]) -> None:
    """Refuse a run without a training where only a training would have an effect.

    A student without a training is a calibrated network. A float run without one is a network with pretrained weights.

    Args:
        spec: of the run.
        addons: names of its add-ons, which all act in the training.

    Raises:
        SqakdError: naming the override that helps.
    """
    if spec.config["recipe"]["epochs"] != 0:
        return
    if addons:
        raise SqakdError(
            f"plus={'+'.join(addons)} has no effect with recipe.epochs=0, which trains nothing; remove plus="
        )
    is_float = spec.config["quantizer"] is None and spec.choices["kd"] == "none"
    if is_float and not spec.config["model"]["net"].get("weights"):
        raise SqakdError(
            "recipe.epochs=0 of a float run: expected pretrained weights or at least one epoch, because a network with"
            " random weights has nothing to offer; use for instance model=torchvision model.weights=DEFAULT"
        )


def check_data(spec: Spec, parts: Parts) -> None:
    """Refuse loaded images that the objective, the loader or an add-on cannot work with.

    Raises:
        SqakdError: naming the override that helps.
    """
    if parts.objective.needs_labels and not parts.data.labelled:
        raise SqakdError(
            f"kd={spec.choices['kd']} reads labels, but the images of this data set have none;"
            f" use kd=sqakd, which needs only a teacher: teacher.checkpoint=FILE"
        )
    if parts.objective.needs_labels and parts.data.mixes:
        raise SqakdError(
            f"plus={spec.choices['plus']} mixes images, but kd={spec.choices['kd']} reads labels, which are not mixed;"
            f" use kd=sqakd, which reads none, or remove the mixing"
        )
    wanted, most = parts.recipe.calibration_batches, parts.data.most_calibration_batches
    if wanted > most:
        raise SqakdError(
            f"recipe.calibration_batches={wanted}: expected at most {most}, the number of batches of"
            f" {parts.recipe.batch_size} images in the data set"
        )
    steps_per_epoch = math.ceil(len(parts.data.train_dataloader()) / parts.recipe.accumulate)
    for name, part in parts.addons.items():
        if isinstance(part, WeightAverage):
            with located(f"plus.{name}"):
                part.check_memory(steps_per_epoch)


def build_float_network(spec: Spec, parts: Parts) -> nn.Module:
    """Build the student's float network, and try everything on a copy that will be done to it later.

    Incompatible networks are so reported before a teacher is trained. Teacher weights may replace the weights and the
    number of classes afterwards.

    Returns:
        The float network with its initial weights.

    Raises:
        SqakdError: if the network cannot take the images, be quantized, or give the features that the kd compares.
    """
    torch.manual_seed(stream_seed(spec.seed, "initial weights"))
    classes, image_shape = parts.data.num_classes or 2, parts.data.image_shape
    network = make_network(spec.config["model"], image_shape, classes, pretrained=parts.is_float)
    student = copy.deepcopy(network)
    if parts.scheme is not None:
        if spec.undecided:
            check_budget(spec, parts, network)
        quantize_network(student, parts.scheme, spec.config["model"]["first"], image_shape, quietly=False)
    if parts.objective.feature_loss is not None:
        teacher = make_network(parts.teacher_model, image_shape, classes)
        trial = make_task(spec, parts, student, teacher, copy.deepcopy(parts.objective), classes)
        set_up_feature_loss(trial, parts, trial.device)
    return network

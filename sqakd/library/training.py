"""The whole label-free training of a low-bit classification network, from batches of any loader.

Paper: Zhao & Zhao 2024, "Self-Supervised Quantization-Aware Knowledge Distillation" (https://arxiv.org/abs/2403.11106).
The training itself is that of the commands: `sqakd.training`.
"""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from sqakd.app.compose import make
from sqakd.app.parts import checked_length
from sqakd.app.tasks import PROBE_IMAGES
from sqakd.errors import SqakdError
from sqakd.kd.objective import Objective
from sqakd.library.batches import Batches, Key, check_network, device_of, refused_images
from sqakd.library.callbacks import Epochs
from sqakd.library.presets import bits_or_default, composed, preset
from sqakd.library.quantizing import calibrate, quantize
from sqakd.library.stream import Images, Stream
from sqakd.library.surroundings import own_state, quiet, tap_hooks_removed
from sqakd.numbers import check_whole
from sqakd.quantization.convert import Scheme
from sqakd.quantization.cost import Cost, cost
from sqakd.quantization.layers import quantizers
from sqakd.quantization.probe import in_mode
from sqakd.randomness import stream_seed
from sqakd.training.callbacks.divergence import Divergence, DivergenceError, first_non_finite
from sqakd.training.callbacks.progress_bar import ProgressBar
from sqakd.training.callbacks.resume import Resume
from sqakd.training.evaluate import evaluate
from sqakd.training.pretrain import pretrain
from sqakd.training.recipe import Recipe
from sqakd.training.task import Task
from sqakd.training.trainer import check_trainer_config, make_trainer

PROGRESS_LINES = 10


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """A trained student with its scores.

    Attributes:
        student: the low-bit network, in evaluation mode, on the device of the teacher.
        scores: after the training, shares between 0 and 1: "agreement" is the share of images for which student and
            teacher predict the same class, "kl" the KL divergence in nats, "top1" and "top5" the accuracy where the
            batches have labels. They are about the validation images, or, without any, about the training images.
        scores_before: the same scores after the calibration, before the training.
        history: one row per epoch, without those in which features were reproduced: the mean training loss, the
            learning rates, and the scores where validation images are given.
        cost: number of parameters, bytes with the weights at their bits, and bit-operations for one image.
        seconds: duration of the training.
    """

    student: nn.Module
    scores: Mapping[str, float]
    scores_before: Mapping[str, float]
    history: list[dict[str, float]]
    cost: Cost
    seconds: float


def distill(
    teacher: nn.Module,
    images: Batches,
    quantizer: str | Scheme = "lsq",
    *,
    bits: int | None = None,
    student: nn.Module | None = None,
    epochs: int = 100,
    steps: int | None = None,
    lr: float = 1e-3,
    quantizer_lr: float = 1e-5,
    weight_decay: float = 1e-4,
    temperature: float = 4.0,
    start: str | None = None,
    layers: Sequence[str] = (),
    validation: Batches | None = None,
    key: Key = None,
    seed: int = 0,
    progress: bool = True,
    trainer: Mapping[str, Any] | None = None,
) -> Distilled:
    """Train a low-bit copy of a classification network to give the network's own outputs, without labels.

    The student is calibrated on the first batch, then trained with Adam and one cosine from the learning rate to 0. The
    values of the optimizer that are no arguments here are those of conf/recipe/imagefolder.yaml.

    Args:
        teacher: trained float network, images [N, C, H, W] -> logits [N, classes]. It is not changed.
        images: the training images, an iterable of batches such as a DataLoader, which is read once per epoch. A batch
            is a floating-point tensor [N, C, H, W], normalised for the teacher, a sequence that begins with one, such
            as (image, label), or a mapping.
        quantizer: name of a method, or a `Scheme`; see `quantize`.
        bits: of weights and inputs, 1 to 8; 2 by default. A `Scheme` and a given student have their own.
        student: a network to train instead of a copy of the teacher: the result of `quantize`, calibrated or not. It is
            trained in place, in training mode; if it is in that mode already, parts in evaluation mode stay so, such as
            frozen batch norms.
        epochs: passes over the images; 0 only calibrates.
        steps: batches of one epoch, where the images have no length or one epoch is to be shorter. An iterator without
            an end continues from epoch to epoch.
        lr: highest learning rate of the network's parameters.
        quantizer_lr: highest learning rate of the ranges.
        weight_decay: of the network's parameters.
        temperature: of the distillation loss; 4 in SQAKD.
        start: where the ranges of a named method start; see `quantize`.
        layers: if given, the student learns to reproduce the teacher's features at these layers in the first quarter of
            the epochs, as `kd=reconstruction` (docs/methods.md). They are named as for `Distiller`: the first map,
            which is not compared, the map of each stage, and the pooled vector.
        validation: images on which the scores are measured, in the same form. Labels of (image, label) batches are
            used for the accuracy, never for the training. Anything else than one number of a class for each image is no
            label, such as -1 for an unlabelled image, or the position of the image.
        key: place of the images in a batch, or a function from the batch to its images, with which no label is read.
        seed: of the random numbers during the training: dropout, and the order of a DataLoader that shuffles without a
            generator of its own.
        progress: whether to show the progress on standard error.
        trainer: arguments of Lightning's Trainer, such as {"accelerator": "cpu", "precision": "bf16-mixed"}, and
            "compile" and "channels_last", each True or False; they replace those of conf/trainer/auto.yaml. Without a
            word about it nothing is compiled.

    Raises:
        SqakdError: if an argument has no such value, the images end too early, have another shape or values that are
            not finite, a batch has no such key, the teacher does not return logits [N, classes], the network has no
            layer to quantize, or the loss, the weights or a score are not finite.

    Example:
        >>> from torch import nn
        >>> teacher = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5))
        >>> batches = [torch.randn(8, 3, 8, 8) for _ in range(4)]
        >>> result = distill(teacher, batches, "lsq", bits=4, epochs=2, progress=False, trainer={"accelerator": "cpu"})
        >>> len(result.history), result.student(batches[0]).shape, sorted(result.scores)
        (2, torch.Size([8, 5]), ['agreement', 'kl'])
    """
    check_whole("epochs", epochs, minimum=0)
    check_network(teacher)
    if bits is not None and (student is not None or isinstance(quantizer, Scheme)):
        owner = "a Scheme has its own bits" if student is None else "the student is quantized already"
        raise SqakdError(f"bits={bits!r}: expected None, because {owner}")
    stream = Stream(images, key=key, steps=steps)
    first = stream.first
    network = copy.deepcopy(teacher)
    stream.classes = classes = _classes(network, first)
    objective = _objective(temperature, staged=len(layers) > 0)
    length = checked_length(epochs, objective)
    recipe = replace(_recipe(len(first), epochs, lr, quantizer_lr, weight_decay), epochs=length.training)
    config = _trainer_config(trainer)
    home = device_of(teacher)
    if student is None:
        if isinstance(quantizer, str):  # some ranges have the weight decay of the network
            number = bits_or_default(bits)
            quantizer = preset(quantizer, w_bits=number, a_bits=number, weight_decay=weight_decay, start=start)
            start = None  # the scheme has it
        student = quantize(teacher, quantizer, start=start, example=first)
    elif start is not None:
        raise SqakdError(f"start={start!r}: expected None, because the student is quantized already")
    elif (found := _classes(check_network(student), first, owner="student")) != classes:
        raise SqakdError(f"the student has {found} classes and the teacher {classes}; expected the same")
    judged = None
    if validation is not None:
        judged = Stream(validation, key=key, shape=first.shape[1:], classes=classes, name="validation images")
    data = Images(stream, judged)
    task = Task(
        student=student,
        teacher=network,
        objective=objective,
        recipe=recipe,
        num_classes=classes,
        labelled=data.labelled,
        seed=seed,
        compile=config["compile"],
        channels_last=config["channels_last"],
        feature_layers=layers,
        teacher_feature_layers=layers,
    )
    rows = Epochs()
    bars = [ProgressBar(label="distill", lines=PROGRESS_LINES)] if progress else []
    with own_state(), quiet(), tap_hooks_removed(task), tempfile.TemporaryDirectory() as folder:
        check_trainer_config(recipe, config)
        lightning = make_trainer(
            recipe,
            config,
            callbacks=[*_callbacks(len(first)), *bars, rows],
            loggers=[],
            folder=Path(folder),
            validates=validation is not None,
        )
        if lightning.world_size > 1:
            raise SqakdError(
                f"trainer={dict(trainer or {})}: expected one device, because the batches of a loader are not divided"
            )
        device = lightning.strategy.root_device
        own = quantizers(student)
        if not own or not all(bool(q.calibrated) for q in own):  # calibrate refuses a float network
            torch.manual_seed(stream_seed(seed, "calibration"))  # stochastic depth and dropout draw here
            calibrate(student.to(device), first)
        before = evaluate(task.to(device), data, lightning)
        started = time.perf_counter()
        if epochs:
            if not student.training:  # Lightning keeps the mode, and in this one batch norm and dropout do not train
                student.train()
            images, resume = first[:PROBE_IMAGES].to(device), Resume(Path(folder) / "pretrain.ckpt")
            task.build_feature_loss(images, training_images=0, labels=None)
            pretrain(task, data, config, epochs=length.stage, images=images, resume=resume, callbacks=bars)
            lightning.fit(task, datamodule=data)
        seconds = time.perf_counter() - started
        after = evaluate(task.to(device), data, lightning) if epochs else before
        if bad := [f"{name} is {value}" for name, value in after.items() if not math.isfinite(value)]:
            place = first_non_finite(student, first.to(device)) or "every layer's output on the first batch is finite"
            stage = "training" if epochs else "calibration"
            raise DivergenceError(f"after the {stage}, {', '.join(bad)}: {place}; expected finite scores")
    student = student.to(home).eval()
    channels, height, width = first.shape[1:]
    return Distilled(
        student=student,
        scores=after,
        scores_before=before,
        history=rows.rows,
        cost=cost(student, (channels, height, width)),
        seconds=seconds,
    )


@torch.no_grad()
def _classes(network: nn.Module, images: Tensor, *, owner: str = "teacher") -> int:
    """Return the width of the logits, and refuse a network that returns anything else."""
    with refused_images(images), in_mode(network, training=False):
        logits = network(images.to(device_of(network)))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images) or logits.shape[1] < 2:
        found = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise SqakdError(
            f"the {owner} returns {found}; expected logits [N, classes] of at least two classes. For other outputs,"
            f" write a loop of your own with Distiller"
        )
    if owner == "teacher" and not bool(torch.isfinite(logits).all()):
        raise SqakdError("the teacher's logits are not finite on the first batch")
    return logits.shape[1]


def _trainer_config(changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer and of the task."""
    # Runs decide by time whether to compile. And with deterministic=False, Lightning would change torch's own setting.
    defaults = dict(composed().config["trainer"]) | {"compile": False, "deterministic": None}
    config = defaults | dict(changes or {})
    for key in ("compile", "channels_last"):
        if not isinstance(config[key], bool):
            raise SqakdError(f"{key}={config[key]!r}: expected True or False")
    return config


def _recipe(batch_size: int, epochs: int, lr: float, quantizer_lr: float, weight_decay: float) -> Recipe:
    """Return the recipe of conf/recipe/imagefolder.yaml with the given values."""
    node = composed().config["recipe"] | {
        **{"epochs": epochs, "batch_size": batch_size},
        **{"lr": lr, "quantizer_lr": quantizer_lr, "weight_decay": weight_decay},
    }
    made: Recipe = make(node, "")
    return made


def _objective(temperature: float, *, staged: bool) -> Objective:
    """Return the loss of conf/kd/sqakd.yaml, or that of conf/kd/reconstruction.yaml with its stage."""
    node = composed("kd=reconstruction" if staged else "kd=sqakd").config["kd"]
    made: Objective = make(node | {"temperature": temperature}, "")
    return made


def _callbacks(batch_size: int) -> list[pl.Callback]:
    """Return the callbacks of a training, with the estimate of EWGS's gradient scaling as in the commands."""
    node = composed().config["callbacks"]["hessian_scaling"] | {"batch_size": batch_size}
    return [
        Divergence(keeps_checkpoint=False),
        make(node, "callbacks.hessian_scaling"),
    ]

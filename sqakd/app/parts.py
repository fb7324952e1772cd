"""The parts of one run, constructed from its specification: data, recipe, objective, quantization and callbacks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import nn

from sqakd.allocation.budget import Budget
from sqakd.app.compose import compose_spec, located, make
from sqakd.app.overrides import float_run_overrides
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.transforms.augment import Augment
from sqakd.errors import SqakdError
from sqakd.files import sha256
from sqakd.kd.objective import Objective
from sqakd.models.trial import try_network
from sqakd.quantization.convert import Scheme, quantize
from sqakd.runs.length import Length, length
from sqakd.runs.spec import Spec
from sqakd.training.recipe import Recipe


@dataclass(frozen=True)
class Parts:
    """The objects that a run consists of, before any network.

    Attributes:
        data: images; not loaded yet.
        recipe: optimizer and schedule of the training.
        length: epochs of the training and of a stage before it.
        objective: loss parts and their weights.
        scheme: how the student is quantized; None for a float network.
        budget: limits for bits that are chosen.
        addons: chosen add-ons by name, augmentations and callbacks.
        callbacks: of the add-ons first, because others look at what these have changed.
        teacher_run: specification of the teacher's own float run.
    """

    data: ImageDataModule
    recipe: Recipe
    length: Length
    objective: Objective
    scheme: Scheme | None
    budget: Budget
    addons: Mapping[str, Any]
    callbacks: tuple[pl.Callback, ...]
    teacher_run: Spec

    @property
    def teacher_model(self) -> Mapping[str, Any]:
        """The `model` node of the teacher's own float run."""
        node: Mapping[str, Any] = self.teacher_run.config["model"]
        return node

    @property
    def is_float(self) -> bool:
        """Whether the run trains a float network from labels alone, without a teacher."""
        return self.scheme is None and not self.objective.needs_teacher


def make_parts(spec: Spec) -> Parts:
    """Construct the parts of a run.

    Raises:
        SqakdError: if a constructor refuses its arguments.
    """
    config = spec.config
    addons = make_addons(config)
    nodes = {name: node for name, node in (config["callbacks"] or {}).items() if node}
    objective, recipe, epochs = make_training(config)
    parts = Parts(
        data=make(config["dataset"], "dataset"),
        recipe=recipe,
        length=epochs,
        objective=objective,
        scheme=make(config["quantizer"], "quantizer"),
        budget=make(config["budget"], "budget"),
        addons=addons,
        callbacks=(
            *(part for part in addons.values() if isinstance(part, pl.Callback)),
            *(make(node, f"callbacks.{name}") for name, node in nodes.items()),
        ),
        teacher_run=compose_spec(float_run_overrides(spec, "model@teacher")),
    )
    parts.data.extend({name: part for name, part in addons.items() if isinstance(part, Augment)})
    return parts


def make_addons(config: Mapping[str, Any]) -> dict[str, Any]:
    """Construct the chosen add-ons, in the order of their names.

    Raises:
        SqakdError: if a constructor refuses its arguments.
    """
    return {name: make(node, f"plus.{name}") for name, node in sorted(config.get("plus", {}).items())}


def make_training(config: Mapping[str, Any]) -> tuple[Objective, Recipe, Length]:
    """Construct the objective and the recipe of the training, which lacks the epochs of a stage before it.

    Raises:
        SqakdError: if a constructor refuses its arguments, or the stage leaves no epoch.
    """
    objective: Objective = make(config["kd"], "kd")
    recipe: Recipe = make(config["recipe"], "recipe")
    with located("recipe"):
        found = checked_length(recipe.epochs, objective)
    return objective, replace(recipe, epochs=found.training), found


def checked_length(epochs: int, objective: Objective) -> Length:
    """Return the length of a run.

    Args:
        epochs: of the recipe.
        objective: its feature loss may have a stage before the training.

    Raises:
        SqakdError: if the stage leaves no epoch.
    """
    loss = objective.feature_loss
    found = length(epochs, share=loss.pretrain_share if loss else 0, own=loss.pretrain_epochs if loss else 0)
    if found.taken and not found.training:
        raise SqakdError(f"epochs={epochs}: expected at least 2, because the stage before the training takes one")
    return found


def with_inputs(spec: Spec, data: ImageDataModule) -> Spec:
    """Add the digests of the files that a run reads, so that a changed file makes it another run.

    Args:
        spec: of the run.
        data: its data set; the images need not be loaded.

    Raises:
        SqakdError: if the images cannot be listed.
    """
    inputs = {}
    teacher = spec.config["teacher"]["checkpoint"]
    if teacher is not None and Path(teacher).is_file():  # a missing file is reported when it is loaded
        inputs["teacher"] = sha256(Path(teacher))
    with located("dataset"):
        images = data.fingerprint()
    if images is not None:
        inputs["images"] = images
    config = spec.config
    if names := data.given_names:  # the names, not the path of a file that the run may outlive
        config = config | {"dataset": config["dataset"] | {"classes": names}}
    return replace(spec, config=config, inputs=inputs)


def make_network(
    model: Mapping[str, Any], image_shape: tuple[int, int, int], classes: int, *, pretrained: bool = False
) -> nn.Module:
    """Construct a float network and run it once.

    Args:
        model: a `model` node of a configuration.
        image_shape: channels, height, width of the data set's images.
        classes: width of the logits.
        pretrained: whether to load the pretrained weights that the node names. A network whose weights are replaced
            by those of a float run needs none.

    Raises:
        SqakdError: if the network cannot take such images.
    """
    net = model["net"] if pretrained else without_pretrained(model["net"])
    network: nn.Module = make(net, "model.net", num_classes=classes)
    try_network(network, name=model["name"], image_shape=image_shape, num_classes=classes)
    return network


def without_pretrained(net: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node `model.net` that loads no pretrained weights, e.g. because others follow.

    Example:
        >>> without_pretrained({"arch": "resnet18", "weights": "DEFAULT"}), without_pretrained({"blocks": 3})
        ({'arch': 'resnet18', 'weights': None}, {'blocks': 3})
    """
    return {**net, "weights": None} if "weights" in net else dict(net)


def quantize_network(
    network: nn.Module,
    scheme: Scheme,
    first: Sequence[str] | None,
    image_shape: tuple[int, int, int],
    *,
    quietly: bool,
) -> None:
    """Quantize a run's network in place.

    Args:
        network: float.
        scheme: how to quantize it.
        first: modules whose layers count as the first; None: the first layer.
        image_shape: channels, height, width.
        quietly: whether to omit the warning about layers that stay float, because it was given before.
    """
    with warnings.catch_warnings():
        if quietly:
            warnings.simplefilter("ignore")
        quantize(network, scheme, first=first, image_shape=image_shape)

"""Networks of timm (PyTorch Image Models) by name: https://huggingface.co/docs/timm. Needs the extra `timm`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from sqakd.errors import SqakdError, some
from sqakd.models.similar import similar


def timm_network(
    *, arch: str, weights: bool | str | None, num_classes: int, options: Mapping[str, Any] | None
) -> nn.Module:
    """Return a network from images [N, 3, H, W] to logits [N, num_classes].

    Args:
        arch: name of the architecture, e.g. "resnet50".
        weights: pretrained weights to start from, downloaded once: "DEFAULT" (or True), or one of timm's tags, such as
            "a1_in1k". None (or False) initialises randomly.
        num_classes: number of classes. If the pretrained weights have another number, timm initialises the last layer
            randomly.
        options: further arguments of the network's constructor, such as {"img_size": 32} of a vision transformer.

    Raises:
        SqakdError: if timm is not installed, if timm does not have this network or these weights, if the network does
            not take the options, or if the weights cannot be loaded.
    """
    timm = _timm()
    if not timm.is_model(arch):
        known = timm.list_models()
        raise SqakdError(f"timm has no network {arch!r}{similar(arch, known)}", topic="model.timm_name")
    options = dict(options or {})
    # `create_model` itself takes these; a checkpoint_path would be read as a pickle, which can run code.
    if taken := sorted(options.keys() & {"num_classes", *inspect.signature(timm.create_model).parameters}):
        raise SqakdError(f"options has {some(taken)}; expected arguments of the constructor of {arch}")
    name = arch
    if weights not in (None, False, True, "DEFAULT"):
        name = f"{arch}.{weights}"
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{arch}.*")]
        if weights not in tags:
            choices = ", ".join(["DEFAULT", *tags])
            raise SqakdError(f"{arch} has no weights {weights!r}; choose one of {choices}", topic="model.weights")
    try:
        network: nn.Module = timm.create_model(name, pretrained=bool(weights), num_classes=num_classes, **options)
    except TypeError as error:
        if not options:
            raise
        raise SqakdError(
            f"options={options}: {arch} does not take them ({_first_line(error)}); expected arguments of its"
            " constructor"
        ) from error
    except (OSError, RuntimeError) as error:
        if not weights:
            raise
        raise SqakdError(
            f"the weights {weights} of {arch} could not be loaded ({_first_line(error)})", topic="model.timm_weights"
        ) from error
    return network


def _timm() -> Any:
    """Import timm, which is an optional dependency."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise SqakdError(f"networks of timm need a missing package ({error})", topic="model.timm_missing") from error
    return timm


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

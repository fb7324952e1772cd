"""Torchvision's classification networks by name: https://docs.pytorch.org/vision/stable/models.html.

Where this differs:

- The logits are the only output. The auxiliary classifiers of GoogLeNet and Inception are therefore removed.
- The sums of residual blocks are modules (`sqakd.models.residual_blocks`).
- GoogLeNet and Inception convert ImageNet's normalisation into their own inside the network. Torchvision does so only
  with pretrained weights. Here they always do, so that a name stands for one function of its weights and images.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision import models

from sqakd.errors import SqakdError
from sqakd.models.residual_blocks import use_sum_modules
from sqakd.models.similar import similar

AUXILIARY = ("aux1", "aux2", "AuxLogits")


def torchvision_network(*, arch: str, weights: str | None, num_classes: int) -> nn.Module:
    """Return a network from images [N, 3, H, W] to logits [N, num_classes].

    Args:
        arch: name of the architecture, e.g. "resnet50".
        weights: pretrained weights to start from, e.g. "DEFAULT" or "IMAGENET1K_V1", downloaded once. None initialises
            randomly.
        num_classes: number of classes. If the pretrained weights have another number, the last layer is initialised
            randomly.

    Raises:
        SqakdError: if torchvision does not have this network or these weights, or if the weights cannot be downloaded.
    """
    known = models.list_models(models)
    if arch not in known:
        raise SqakdError(f"torchvision has no network {arch!r}{similar(arch, known)}", topic="model.torchvision_name")
    options: dict[str, Any] = {"num_classes": num_classes}
    if weights is not None:
        options = {"weights": _weights(arch, weights)}
    elif arch in ("googlenet", "inception_v3"):
        options["init_weights"] = True  # the default; torchvision warns unless it is passed
    try:
        network: nn.Module = models.get_model(arch, **options)
    except OSError as error:
        raise SqakdError(
            f"the weights {weights} of {arch} could not be downloaded ({error}) from {options['weights'].url}",
            topic="model.torchvision_weights",
        ) from error
    if hasattr(network, "aux_logits"):
        network.aux_logits, network.transform_input = False, True  # type: ignore[assignment]
        for name in AUXILIARY:
            if hasattr(network, name):
                setattr(network, name, None)
    if weights is not None:
        _set_classes(network, num_classes)
    use_sum_modules(network)
    return network


def _weights(arch: str, name: str) -> Any:
    """Return torchvision's entry for the pretrained weights `name` of a network."""
    choices = models.get_model_weights(arch)
    if name not in choices.__members__:
        names = ", ".join(choices.__members__)
        raise SqakdError(f"{arch} has no weights {name!r}; choose one of {names}", topic="model.weights")
    return choices[name]


def _set_classes(network: nn.Module, num_classes: int) -> None:
    """Replace a last layer with another number of classes by a randomly initialised one.

    The last layer is linear, or the 1x1 convolution of SqueezeNet.
    """
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    name, last = layers[-1]
    if isinstance(last, nn.Linear) and last.out_features != num_classes:
        network.set_submodule(name, nn.Linear(last.in_features, num_classes, bias=last.bias is not None))
    elif isinstance(last, nn.Conv2d) and last.out_channels != num_classes:
        has_bias = last.bias is not None
        fresh = nn.Conv2d(last.in_channels, num_classes, last.kernel_size, bias=has_bias)  # type: ignore[arg-type]
        network.set_submodule(name, fresh)

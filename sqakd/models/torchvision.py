"""Torchvision's classification networks by name: https://docs.pytorch.org/vision/stable/models.html.

Where ours differ: the logits are the only output, so the auxiliary classifiers of GoogLeNet and Inception are left
out; and these two always turn ImageNet's normalisation into their own, with or without pretrained weights, so that the
same name is always the same function of its tensors.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from torch import nn
from torchvision import models

AUXILIARY = ("aux1", "aux2", "AuxLogits")
LIST = 'python -c "from torchvision import models; print(models.list_models(models))" lists them'


def torchvision_network(*, arch: str, weights: str | None, num_classes: int) -> nn.Module:
    """Images [N, 3, H, W] -> logits [N, num_classes].

    Args:
        arch: e.g. "resnet50".
        weights: pretrained weights to start from, e.g. "DEFAULT" or "IMAGENET1K_V1", downloaded once; None: random.
        num_classes: where it is not the weights' own number, the last layer is a fresh one.

    Raises:
        ValueError: for a name that torchvision does not have, or weights that cannot be downloaded.
    """
    known = models.list_models(models)
    if arch not in known:
        close = get_close_matches(arch, known)
        raise ValueError(f"torchvision has no network {arch!r}; {_close(close)}{LIST}")
    options: dict[str, Any] = {"num_classes": num_classes}
    if weights is not None:
        options = {"weights": _weights(arch, weights)}
    elif arch in ("googlenet", "inception_v3"):
        options["init_weights"] = True
    try:
        network: nn.Module = models.get_model(arch, **options)
    except OSError as error:
        raise ValueError(
            f"the weights {weights} of {arch} could not be downloaded ({error}); put the file"
            f" {options['weights'].url} into torch's cache (TORCH_HOME), or type model.weights=null"
        ) from error
    if hasattr(network, "aux_logits"):
        network.aux_logits, network.transform_input = False, True  # type: ignore[assignment]
        for name in AUXILIARY:
            if hasattr(network, name):
                setattr(network, name, None)
    if weights is not None:
        _set_classes(network, num_classes)
    return network


def _weights(arch: str, name: str) -> Any:
    choices = models.get_model_weights(arch)
    if name not in choices.__members__:
        raise ValueError(f"{arch} has no weights {name!r}; choose one of {', '.join(choices.__members__)}, or null")
    return choices[name]


def _set_classes(network: nn.Module, num_classes: int) -> None:
    """Put a fresh last layer (linear, or SqueezeNet's 1x1 convolution) in place of one with other classes."""
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    name, last = layers[-1]
    if isinstance(last, nn.Linear) and last.out_features != num_classes:
        network.set_submodule(name, nn.Linear(last.in_features, num_classes, bias=last.bias is not None))
    elif isinstance(last, nn.Conv2d) and last.out_channels != num_classes:
        has_bias = last.bias is not None
        fresh = nn.Conv2d(last.in_channels, num_classes, last.kernel_size, bias=has_bias)  # type: ignore[arg-type]
        network.set_submodule(name, fresh)


def _close(matches: list[str]) -> str:
    return f"close: {', '.join(matches)}; " if matches else ""

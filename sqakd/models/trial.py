"""A trial forward pass, so that a network that is incompatible with its images is reported before training."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError


@torch.no_grad()
def try_network(network: nn.Module, *, name: str, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Run a copy of a network on two black images, in training mode, as calibration and training do.

    Args:
        network: the network, which stays unchanged.
        name: name of the network in the message.
        image_shape: (channels, height, width).
        num_classes: expected number of classes.

    Raises:
        SqakdError: if the network fails on such images, or its output is not logits [2, num_classes].
    """
    size = "x".join(str(length) for length in image_shape)
    try:
        output = copy.deepcopy(network).train()(torch.zeros(2, *image_shape))
    except Exception as error:  # a wrong image size may cause any exception, depending on the network
        reason = " ".join((str(error) or type(error).__name__).split("\n", 1)[0].split())
        raise SqakdError(f"{name} cannot take images of {size}: {reason}", topic="model.images") from error
    if not isinstance(output, Tensor):
        raise SqakdError(f"{name} returns a {type(output).__name__}; expected one tensor, the logits [N, classes]")
    if tuple(output.shape) != (2, num_classes):
        raise SqakdError(
            f"{name} turns two images of {size} into a tensor of shape {tuple(output.shape)}; expected logits"
            f" {(2, num_classes)}, one for each of {num_classes} classes"
        )

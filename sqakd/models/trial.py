"""A first forward pass, so that a network that does not fit its images says so before anything is trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


@torch.no_grad()
def try_network(network: nn.Module, *, name: str, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Run a copy of a network on two black images, in training mode as calibration and training do.

    Args:
        network: left as it is.
        name: what the message calls it.
        image_shape: channels, height, width.
        num_classes: expected width of the logits.

    Raises:
        ValueError: if it cannot take such images, or gives anything but logits [2, num_classes].
    """
    size = "x".join(str(length) for length in image_shape)
    try:
        output = copy.deepcopy(network).train()(torch.zeros(2, *image_shape))
    except Exception as error:  # networks complain about a wrong size in every possible way
        reason = " ".join((str(error) or type(error).__name__).split("\n", 1)[0].split())
        raise ValueError(
            f"{name} cannot take images of {size}: {reason}. Choose another model, or a data set with images of the"
            f" size it was made for, e.g. dataset=imagefolder dataset.image_size=224"
        ) from error
    if not isinstance(output, Tensor):
        raise ValueError(f"{name} returns a {type(output).__name__}; expected one tensor, the logits [N, classes]")
    if tuple(output.shape) != (2, num_classes):
        raise ValueError(
            f"{name} turns two images of {size} into a tensor of shape {tuple(output.shape)}; expected logits"
            f" {(2, num_classes)}, one for each of {num_classes} classes"
        )

"""Sensitivity of a network in memory, and bits for each of its layers under a budget."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from sqakd.allocation.measure import WIDTHS, Criterion, measure
from sqakd.allocation.table import Sensitivity
from sqakd.errors import SqakdError
from sqakd.library.batches import Batches, Key, device_of, first_batches, refused_images
from sqakd.library.presets import preset
from sqakd.quantization.convert import Scheme


def sensitivity(
    model: nn.Module,
    images: Batches,
    quantizer: str | Scheme = "lsq",
    *,
    widths: Sequence[int] = WIDTHS,
    criterion: Criterion = "kl",
    batches: int = 1,
    key: Key = None,
) -> Sensitivity:
    """Measure what the outputs of a float network lose if a single tensor of a single layer is quantized.

    The loss is the KL divergence from the network's own outputs, mean over the images, for each layer, its weight and
    its input, and each number of bits. No label is read. A few hundred images are enough.

    Args:
        model: float network, images [N, C, H, W] -> logits [N, classes, ...]. It is not changed.
        images: batches of training images, in the forms of `calibrate`.
        quantizer: name of a method, or a `Scheme`; see `quantize`.
        widths: numbers of bits to try, 1 to 8.
        criterion: "kl", or "curvature" for the curvature-weighted squared error, which takes a few backward passes.
        batches: how many batches to read.
        key: place of the images in a batch, or a function from the batch to its images.

    Returns:
        The table. `text()` and `csv()` print it, and `layers` has its numbers.

    Raises:
        SqakdError: if an argument is wrong, the network is quantized already or returns no logits, the images cannot be
            read, or a tensor has no range.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 10))
        >>> found = sensitivity(network, torch.randn(8, 3, 8, 8), "lsq", widths=[2, 8])
        >>> [layer.name for layer in found.layers]
        ['0', '2', '4']
        >>> found.layers[1].weight[8] < found.layers[1].weight[2]
        True
    """
    if not isinstance(model, nn.Module):
        raise SqakdError(f"found {type(model).__name__}; expected a network, a torch.nn.Module")
    scheme = quantizer if isinstance(quantizer, Scheme) else preset(quantizer, w_bits=2, a_bits=2)
    found = first_batches(images, batches, key).to(device_of(model))
    with refused_images(found):
        return measure(copy.deepcopy(model), scheme, found, widths=widths, criterion=criterion)

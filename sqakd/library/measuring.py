"""Sensitivity of a network in memory, and bits for each of its layers under a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor, nn

from sqakd.allocation.budget import Budget
from sqakd.allocation.measure import WIDTHS, Criterion, measure
from sqakd.allocation.table import Sensitivity
from sqakd.app.budget import free_layers, rest_of
from sqakd.errors import SqakdError
from sqakd.library.batches import Batches, Key, check_network, device_of, first_batches, images_of, refused_images
from sqakd.library.presets import preset
from sqakd.quantization.convert import Scheme


class LayerBits(TypedDict):
    """Bits of single layers by name, as `quantize` takes them."""

    layer_w_bits: dict[str, int]
    layer_a_bits: dict[str, int]


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
    check_network(model)
    scheme = quantizer if isinstance(quantizer, Scheme) else preset(quantizer, w_bits=2, a_bits=2)
    found = first_batches(images, batches, key).to(device_of(model))
    with refused_images(found):
        return measure(model, scheme, found, widths=widths, criterion=criterion)


def allocate(
    model: nn.Module,
    found: Sensitivity,
    example: Tensor,
    quantizer: str | Scheme = "lsq",
    *,
    size: str | float | None = None,
    bit_operations: str | float | None = None,
    average_bits: float | None = None,
    first: Sequence[str] | None = None,
) -> LayerBits:
    """Choose the bits of each layer with the smallest summed sensitivity under a budget, as an exact integer program.

    Args:
        model: the float network that was measured. It is not changed.
        found: result of `sensitivity`; its numbers of bits are the choice.
        example: one batch of images [N, C, H, W], whose size decides the bit-operations.
        quantizer: name of a method, or a `Scheme`, that will quantize the network; see `quantize`. Layers that stay
            float with it, such as the first and the last, have no choice.
        size: largest packed size in bytes, or text such as "40kB".
        bit_operations: largest number of bit-operations for one image, or text such as "200M".
        average_bits: largest average over all weights of the layers, and over all elements of their inputs.
        first: modules whose layers count as first; see `quantize`.

    Returns:
        Bits of weights and of inputs by layer, as the arguments `layer_w_bits` and `layer_a_bits` of `quantize`.

    Raises:
        SqakdError: if there is no limit, an argument is wrong, or no choice keeps within the limits; the message has
            the smallest possible value.

    Example:
        >>> import torch
        >>> from sqakd.library.quantizing import quantize
        >>> inner = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), *inner, nn.Flatten(), nn.Linear(64, 9))
        >>> images = torch.randn(8, 3, 8, 8)
        >>> chosen = allocate(network, sensitivity(network, images, widths=[2, 4]), images, average_bits=2)
        >>> chosen
        {'layer_w_bits': {'1': 2, '2': 2}, 'layer_a_bits': {'1': 2, '2': 2}}
        >>> student = quantize(network, "lsq", **chosen)
    """
    from sqakd.allocation.program import allocate as solve  # not at the top: scipy.optimize takes a moment to import

    budget = Budget(
        size=size,
        bit_operations=bit_operations,
        average_bits=average_bits,
        widths=found.widths,
        criterion="kl",
        images=found.images,
    )
    if not budget.limited:
        raise SqakdError("the choice of bits has no limit; expected size, bit_operations or average_bits")
    scheme = quantizer if isinstance(quantizer, Scheme) else preset(quantizer, w_bits=2, a_bits=2)
    channels, height, width = images_of(example).shape[1:]
    shape = (channels, height, width)
    with refused_images(example):
        free = set(free_layers(model, scheme, first, shape).values())
        layers = [layer for layer in found.layers if layer.name in free]
        rest = rest_of(model, scheme, first, shape, layers)
    chosen = solve(layers, budget, rest)
    return {
        "layer_w_bits": {name: pair.weight for name, pair in chosen.items()},
        "layer_a_bits": {name: pair.input for name, pair in chosen.items()},
    }

"""Batches of images in the forms that people's own loaders have.

A batch is a tensor of images, a sequence that begins with such a tensor, such as (image, label), or a mapping. The
images of a mapping are found by a key; a key may also be a function of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError, is_out_of_memory, some
from sqakd.numbers import check_whole

# A batch in any form, and the way from a batch to its images: an index or a name in it, or a function.
AnyBatch = Any
Key = str | int | Callable[[AnyBatch], Tensor] | None
# Several batches, or one tensor, which is a single batch.
Batches = Iterable[AnyBatch] | Tensor


def images_of(batch: AnyBatch, key: Key = None) -> Tensor:
    """Return the images of one batch.

    Args:
        batch: images [N, C, H, W], or a sequence or mapping that holds them.
        key: place of the images in the batch, or a function that returns them. By default the images are the first
            element of a sequence. A batch that is a tensor consists of its images.

    Returns:
        Floating-point images [N, C, H, W], with N at least 1.

    Raises:
        SqakdError: if the batch has no such key, or no such images there.

    Example:
        >>> image, label = torch.zeros(2, 3, 8, 8), torch.tensor([1, 0])
        >>> batches = image, (image, label), {"pixels": image, "target": label}
        >>> keys = None, None, "pixels"
        >>> [tuple(images_of(batch, key).shape) for batch, key in zip(batches, keys)]
        [(2, 3, 8, 8), (2, 3, 8, 8), (2, 3, 8, 8)]
    """
    images = _found(batch, key)
    if not isinstance(images, Tensor):
        raise SqakdError(f"a batch has {type(images).__name__} where its images were expected{_hint(batch, key)}")
    if images.ndim != 4 or not len(images):
        raise SqakdError(f"images of shape {list(images.shape)}: expected [N, C, H, W] with N >= 1")
    if not images.is_floating_point():
        raise SqakdError(f"images of type {images.dtype}: expected floating-point images, normalised for the network")
    return images


def check_network(network: Any) -> nn.Module:
    """Return a network if it is one.

    Raises:
        SqakdError: with the type that was found.
    """
    if not isinstance(network, nn.Module):
        raise SqakdError(f"found {type(network).__name__}; expected a network, a torch.nn.Module")
    return network


def labels_of(batch: AnyBatch) -> Tensor | None:
    """Return the labels [N] of an (image, label) batch; None for any other batch."""
    if isinstance(batch, Sequence) and len(batch) > 1 and isinstance(batch[1], Tensor):
        label = batch[1]
        return label if label.ndim == 1 and not label.is_floating_point() else None
    return None


def check_finite(images: Tensor) -> Tensor:
    """Return images if all of their values are finite.

    Raises:
        SqakdError: if there are other values.
    """
    if not bool(torch.isfinite(images).all()):
        raise SqakdError("the images have values that are NaN or infinite; expected finite numbers")
    return images


def first_batches(batches: Batches, count: int, key: Key = None) -> Tensor:
    """Return the images of the first batches, joined to one tensor [N, C, H, W].

    Raises:
        SqakdError: if there are fewer batches, an image has another shape, or a value is not finite.
    """
    check_whole("batches", count)
    found = [images_of(batch, key) for batch in islice(several(batches), count)]
    if len(found) < count:
        raise SqakdError(f"the images end after {len(found)} batches; expected at least {count}")
    for images in found[1:]:
        check_shape(images, found[0].shape[1:])
    return check_finite(torch.cat(found))


def check_shape(images: Tensor, expected: Sequence[int]) -> None:
    """Refuse images of another shape than those before.

    Args:
        images: [N, C, H, W].
        expected: channels, height, width.

    Raises:
        SqakdError: with both shapes.
    """
    if list(images.shape[1:]) != list(expected):
        raise SqakdError(f"images of shape {list(images.shape[1:])} follow images of shape {list(expected)}")


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network's first parameter or buffer; the CPU if it has neither."""
    for tensor in model.state_dict(keep_vars=True).values():
        if isinstance(tensor, Tensor):
            return tensor.device
    return torch.device("cpu")


def several(batches: Batches) -> Iterator[AnyBatch]:
    """Yield batches one by one; a tensor is a single batch."""
    if isinstance(batches, Tensor):
        yield batches
    elif isinstance(batches, Iterable) and not isinstance(batches, str | Mapping):
        yield from batches
    else:
        raise SqakdError(f"found {type(batches).__name__}; expected an iterable of batches, or one tensor of images")


def _found(batch: AnyBatch, key: Key) -> Any:
    """Return what a batch has in the place of its images."""
    if callable(key):
        return key(batch)
    if isinstance(batch, Tensor):  # without parts that a key could name
        return batch
    if key is None:
        return batch[0] if isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch) else batch
    try:
        return batch[key]
    except (KeyError, IndexError, TypeError) as error:
        raise SqakdError(f"a batch has no {key!r}{_hint(batch, key)}") from error


def _hint(batch: AnyBatch, key: Key) -> str:
    """Return the second part of a message about a batch without images."""
    if isinstance(batch, Mapping):
        names = some([repr(name) for name in batch])
        return f"; the batch is a mapping with the keys {names}, so key must be one of them or a function"
    return f"; the batch is a {type(batch).__name__} and key is {key!r}"


@contextmanager
def refused_images(images: Tensor) -> Iterator[None]:
    """Turn torch's error in a network's forward pass into one about the images that the network got.

    Args:
        images: [N, C, H, W].

    Raises:
        SqakdError: with the shape of the images and torch's reason.
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join((str(error).splitlines() or [type(error).__name__])[0].split())
        raise SqakdError(f"the network cannot take images of shape {list(images.shape)}: {reason}") from error

"""Context managers for a forward pass that only observes a network and must leave it unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import MethodType

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Run the block in training or evaluation mode, then give each module its own mode back.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(2).eval(), nn.Dropout())
        >>> with in_mode(model, training=False):
        ...     [module.training for module in model]
        [False, False]
        >>> [module.training for module in model]
        [False, True]
    """
    modes = {module: module.training for module in model.modules()}
    try:
        model.train(training)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def buffers_restored(model: nn.Module) -> Iterator[None]:
    """Run the block, then write the former values into the buffers, such as batch-norm statistics."""
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(kept[name])


@contextmanager
def own_statistics(model: nn.Module) -> Iterator[None]:
    """Let synchronized batch norm use the images of this process alone in the block.

    A pass then needs no other process, and it has a second derivative, which torch's synchronized batch norm has not.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.SyncBatchNorm)]
    for layer in layers:
        layer.forward = MethodType(_BatchNorm.forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


@contextmanager
def hooks_removed(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Run the block, then remove hooks that were registered for it."""
    handles = list(hooks)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def run_on_black_image(model: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """Run a network once in evaluation mode on an image of zeros; the hooks of the caller observe the pass.

    Args:
        model: any network for images; its modes are restored.
        image_shape: channels, height, width.
    """
    some = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), torch.zeros(()))
    with in_mode(model, training=False):
        model(torch.zeros(1, *image_shape, device=some.device, dtype=some.dtype))

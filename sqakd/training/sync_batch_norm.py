"""Batch norm over the batches of all devices, in networks whose layers have hooks.

Lightning replaces each batch norm by a synchronized one when a training begins, and by a plain one at its end. The new
layers have the parameters and buffers of the old ones, but not their hooks. A feature loss that reads the input or the
output of a batch norm, and the quantizer of an input that a batch norm shares with other layers, are such hooks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn

# Where torch keeps the hooks of a module's forward pass.
HOOKS = (
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
)


class SyncBatchNorm(TorchSyncBatchNorm):
    """Replaces the batch norms of a model as Lightning does, and moves their hooks to the new layers."""

    def apply(self, model: nn.Module) -> nn.Module:
        with _hooks_kept(model):
            return super().apply(model)

    def revert(self, model: nn.Module) -> nn.Module:
        with _hooks_kept(model):
            return super().revert(model)


@contextmanager
def _hooks_kept(model: nn.Module) -> Iterator[None]:
    """Move the hooks of modules that the block replaces to their replacements; handles of hooks stay valid."""
    before = dict(model.named_modules(remove_duplicate=False))
    yield
    for name, module in model.named_modules(remove_duplicate=False):
        if module is not before[name]:
            for kind in HOOKS:
                setattr(module, kind, getattr(before[name], kind))

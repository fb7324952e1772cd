"""Context managers that restore what a training in memory changes: torch's settings, messages and hooks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sqakd.training.task import Task


@contextmanager
def own_state() -> Iterator[None]:
    """Run the block, then restore torch's random numbers and settings. Ctrl-C stays a KeyboardInterrupt."""
    mode = torch.get_deterministic_debug_mode()
    compiler, lowering = torch._dynamo.config, torch._functorch.config
    try:
        with (
            torch.random.fork_rng(devices=range(torch.cuda.device_count())),
            compiler.patch(recompile_limit=compiler.recompile_limit),
            lowering.patch(force_non_lazy_backward_lowering=lowering.force_non_lazy_backward_lowering),
        ):
            yield
    except SystemExit as error:  # Lightning's answer to Ctrl-C
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        torch.set_deterministic_debug_mode(mode)


@contextmanager
def tap_hooks_removed(task: Task) -> Iterator[None]:
    """Run the block, then take the hooks of a feature loss off the networks."""
    try:
        yield
    finally:
        for features in task.features or ():
            features.remove()


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Lightning's hints while the block runs."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pytorch_lightning\b")
        warnings.filterwarnings("ignore", message="It is recommended to use .self.log")
        logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            logger.setLevel(level)

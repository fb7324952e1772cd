"""A function of a batch as compiled code."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

RECOMPILE_LIMIT = 256
# torch's counters of graphs for which there was no compiled code.
MISSES = (
    ("aot_autograd", "autograd_cache_miss"),
    ("aot_autograd", "autograd_cache_bypass"),
    ("inductor", "fxgraph_cache_miss"),
    ("inductor", "fxgraph_cache_bypass"),
)

# On a CPU, the largest number of reads of a value that is computed again in each loop that needs it. Beyond it, torch
# writes the value to memory. A clipped gradient has about 15 reads, most of them of single numbers such as the range.
# With torch's own limits of 4 and 12, each gradient is written, and read again by two loops.
READS: dict[str, str | int | bool | Callable[..., Any]] = {
    "realize_reads_threshold": 24,
    "realize_acc_reads_threshold": 24,
}


class CompiledStep:
    """Calls compiled code for batches of one size, and the function itself for all others.

    The last batch of an epoch may be smaller. A second compilation for one step of an epoch would not pay.

    Args:
        eager: function whose first argument is a tensor of images [N, C, H, W].
        size: number of images of a batch that is worth compiling; None: all.
        on_failure: called once with the reason if the function cannot be compiled, which then stays eager; None: the
            error is raised.
        keeps_masks: whether masks may be kept for the backward pass. False: on a CPU they are computed again, because
            loops that write or read them are slow (measured with AVX2, see benchmarks/README.md).

    Attributes:
        seconds: of the first compiled call; 0 before.
        cold: whether that call found no compiled code.
    """

    def __init__(
        self,
        eager: Callable[..., Any],
        *,
        size: int | None,
        on_failure: Callable[[str], None] | None = None,
        keeps_masks: bool = True,
    ) -> None:
        self.eager, self.size, self.on_failure, self.keeps_masks = eager, size, on_failure, keeps_masks
        self.compiled: Callable[..., Any] | None = None
        self.failed = False
        self.seconds, self.cold = 0.0, False
        self.recomputing = torch._functorch.config.patch(aggressive_recomputation=True)

    def __call__(self, images: Tensor, *others: Any) -> Any:
        if self.failed or self.size not in (None, len(images)):
            return self.eager(images, *others)
        if self.compiled is None:
            # A sweep trains many networks in one process; torch would stop compiling after eight different ones.
            torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
            # Otherwise torch compiles the backward pass in the middle of the first one, where no way back is left.
            torch._functorch.config.force_non_lazy_backward_lowering = True
            # One process may train several runs whose batches differ. Code for batches of any size would be slower.
            options = READS if images.device.type == "cpu" else None
            self.compiled = torch.compile(self.eager, dynamic=False, options=options)
        if self.seconds:
            return self._call(images, *others)
        started, missed = time.perf_counter(), _misses()
        result = self._call(images, *others)
        self.seconds, self.cold = time.perf_counter() - started, _misses() > missed
        return result

    def _call(self, *arguments: Any) -> Any:
        assert self.compiled is not None
        recomputes = not self.keeps_masks and arguments[0].device.type == "cpu"
        try:
            with self.recomputing if recomputes else nullcontext():  # read where a graph is compiled
                return self.compiled(*arguments)
        except TorchDynamoException as error:
            if self.on_failure is None:
                raise
            self.failed = True
            self.on_failure(_reason(error))
            return self.eager(*arguments)


def _misses() -> int:
    return sum(counters[group][name] for group, name in MISSES)


def _reason(error: TorchDynamoException) -> str:
    """Return the first line of the error that made the compilation fail."""
    cause = getattr(error, "inner_exception", error)
    return next(iter(str(cause).strip().splitlines()), "") or type(cause).__name__

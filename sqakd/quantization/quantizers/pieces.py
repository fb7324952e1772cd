"""Elementwise work in pieces that stay in the processor's cache.

Without a compiler each operation reads its operands from memory and writes its result back. A large activation does not
fit in the cache, so a chain of ten operations moves it ten times. In pieces it is moved once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Elements of one piece for each thread. In single precision it takes 128 KB, and several fit in the cache of a core.
PIECE = 2**15
PLAIN = (Tensor, nn.Parameter)  # a subclass such as FakeTensor may have no values


def splits(x: Tensor, number: Tensor) -> bool:
    """Return whether to work in pieces: eagerly, on a CPU, without a graph, on a large tensor with one range.

    Args:
        x: the tensor to work on.
        number: one of its range.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or not x.is_cpu or type(x) not in PLAIN:
        return False
    dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    return dense and x.numel() > _piece() and not number.ndim


def pieces(x: Tensor, *others: Tensor, buffers: int, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Yield the pieces of some tensors as vectors, and a list of buffers of the same length.

    Args:
        x: a tensor that `splits` accepts.
        others: tensors of the same shape. One with another order in memory is copied, so a tensor to write to needs
            the order of `x` (`torch.empty_like`).
        buffers: number of buffers.
        dtype: of the buffers.
    """
    size = _piece()
    space = [x.new_empty(size, dtype=dtype) for _ in range(buffers)]
    for parts in zip(*(torch.split(_row(tensor, x), size) for tensor in (x, *others)), strict=True):
        length = len(parts[0])
        yield *parts, space if length == size else [buffer[:length] for buffer in space]


def _piece() -> int:
    return PIECE * torch.get_num_threads()


def _row(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor as a vector in the order in which `like` lies in memory; a view where it has the same order."""
    return tensor.reshape(-1) if like.is_contiguous() else tensor.permute(0, 2, 3, 1).reshape(-1)

"""What was said of each training image, kept from step to step and the same in all processes of a training.

A memory is a buffer [images, width], so a checkpoint holds it and a resumed training goes on with the same bits. After
each step the rows of the batch's images become normalise(momentum * row + (1 - momentum) * embedding).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F


def from_all_processes(*tensors: Tensor) -> list[Tensor]:
    """Each tensor [N, ...] joined with those of the other processes, in the same order on all; N may differ."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return list(tensors)
    length = torch.tensor(len(tensors[0]), device=tensors[0].device)
    lengths = [torch.zeros_like(length) for _ in range(distributed.get_world_size())]
    distributed.all_gather(lengths, length)
    sizes = [int(n) for n in lengths]
    joined = []
    for tensor in tensors:
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        joined.append(torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)]))
    return joined


class Memory(nn.Module):
    """What was said of each training image, by one of the two networks.

    Args:
        images: n.
        width: of the embeddings.
        momentum: share of the old in the new.
    """

    bank: Tensor

    def __init__(self, *, images: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        bound = math.sqrt(3 / width)
        self.register_buffer("bank", torch.empty(images, width).uniform_(-bound, bound))

    @torch.no_grad()
    def update(self, index: Tensor, embedding: Tensor) -> None:
        """Move towards new embeddings.

        Args:
            index: [N]; of an image that is there twice the last counts.
            embedding: [N, width].
        """
        places = torch.arange(len(index), device=index.device)
        last = ((index[:, None] == index) * places).amax(dim=1)
        moved = self.momentum * self.bank[index] + (1 - self.momentum) * embedding[last]
        self.bank.index_copy_(0, index, F.normalize(moved))

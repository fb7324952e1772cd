"""Memory bank: one embedding per training image, updated after every step and identical on every rank.

A contrastive loss compares each image with thousands of others, far more than a batch holds. It therefore stores the
latest embedding of every training image and reads the others from there. After each step, the rows of the batch's
images move towards their new embeddings,

    row <- normalise(momentum * row + (1 - momentum) * embedding)

Without momentum, a row would depend on the weights of one step alone, and rows come from many different steps.

Checkpoints: the bank is a buffer [images, width], so a resumed training continues with the same bits.

Distributed training (DDP): every rank holds the whole bank. After each step the ranks exchange the embeddings of their
batches (`gather_ranks`) and all apply the same update, so the banks stay equal without being sent around.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F


def gather_ranks(*tensors: Tensor) -> list[Tensor]:
    """Concatenate tensors over all ranks; without distributed training, return them unchanged.

    Args:
        tensors: each [N, ...]. All have the same N, which may differ between ranks.

    Returns:
        For each tensor, [sum of N over ranks, ...], in the order of the ranks and identical on all of them.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return list(tensors)
    length = torch.tensor(len(tensors[0]), device=tensors[0].device)
    lengths = [torch.zeros_like(length) for _ in range(distributed.get_world_size())]
    distributed.all_gather(lengths, length)
    sizes: list[int] = torch.stack(lengths).tolist()  # one wait for the device, and not one per rank
    joined = []
    for tensor in tensors:
        # all_gather needs equal shapes, but the last batch of an epoch may be smaller on some ranks: pad, then cut.
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        joined.append(torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)]))
    return joined


class MemoryBank(nn.Module):
    """The latest embedding of each training image by one network, student or teacher.

    Args:
        images: size of the training set.
        width: width of the embeddings.
        momentum: weight of the old row in an update, from 0 to below 1.
    """

    bank: Tensor

    def __init__(self, *, images: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        # Elements of variance 1 / width, so that a row starts with a length of about 1, like the embeddings.
        bound = math.sqrt(3 / width)
        self.register_buffer("bank", torch.empty(images, width).uniform_(-bound, bound))

    @torch.no_grad()
    def update(self, index: Tensor, embedding: Tensor) -> None:
        """Move the rows of some images towards new embeddings.

        Args:
            index: [N], positions of the images in the training set. If an image occurs more than once, only its last
                embedding counts.
            embedding: [N, width].
        """
        # index_copy_ with a repeated index would write its rows in an undefined order on a GPU. So each occurrence of
        # an image uses the embedding of its last occurrence, and all of them write the same row.
        positions = torch.arange(len(index), device=index.device)
        last = ((index[:, None] == index) * positions).amax(dim=1)
        moved = self.momentum * self.bank[index] + (1 - self.momentum) * embedding[last]
        self.bank.index_copy_(0, index, F.normalize(moved))

"""Batches straight from a uint8 tensor: no worker processes, and every random number a function of its place.

The permutation depends on (seed, epoch), the augmentation on (seed, epoch, step). All ranks draw for the whole global
batch and keep their part, so two ranks together see what one would have seen. Only an incomplete last batch that is too
small for all ranks to have a part joins the batch before it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sqakd.dataset.batch import Batch
from sqakd.dataset.transforms.augment import Augment
from sqakd.randomness import stream


class EpochSampler:
    """Order of the images in each epoch; Lightning calls `set_epoch` before an epoch starts."""

    def __init__(self, *, length: int, seed: int, shuffle: bool) -> None:
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def order(self) -> Tensor:
        """Positions [length], each once."""
        if not self.shuffle:
            return torch.arange(self.length)
        return torch.randperm(self.length, generator=stream(self.seed, self.epoch, "order"))


class Loader:
    """Iterates over batches of one epoch.

    Args:
        images: uint8 [N, C, H, W]; may be backed by a file.
        labels: int64 [N], or None.
        batch_size: images of one batch over all ranks.
        shuffle: a new order each epoch, else the given one.
        augment: applied later, on the device; its numbers are drawn here. None in evaluation.
        seed: of order and augmentation.
        rank: which part of each batch this process gets.
        world_size: how many parts there are.
        drop_last: leave out an incomplete last batch.
        pin_memory: for faster copies to a CUDA device.
    """

    def __init__(
        self,
        *,
        images: Tensor,
        labels: Tensor | None,
        batch_size: int,
        shuffle: bool,
        augment: Augment | None,
        seed: int,
        rank: int,
        world_size: int,
        drop_last: bool,
        pin_memory: bool,
    ) -> None:
        if batch_size < world_size:
            raise ValueError(f"batch size {batch_size} is smaller than the number of devices, {world_size}")
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.sampler = EpochSampler(length=len(images), seed=seed, shuffle=shuffle)
        self.batch_sampler = None  # Lightning looks for it wherever there is a sampler
        self.augment, self.seed, self.rank, self.world_size = augment, seed, rank, world_size
        self.pin_memory = pin_memory
        full, rest = divmod(len(images), batch_size)
        self.length = full + (rest >= world_size and not drop_last)
        if self.length == 0:
            raise ValueError(
                f"{len(images)} images make no batch of batch size {batch_size} on {world_size} devices:"
                f" choose fewer devices, a smaller recipe.batch_size, or dataset.drop_last=false"
            )
        self.used = full * batch_size if drop_last else len(images)
        self.first_step = self.served = 0

    def __len__(self) -> int:
        return self.length

    def state_dict(self) -> dict[str, int]:
        """Where in its epoch the loader is; Lightning keeps it in the checkpoint."""
        return {"step": self.served % self.length}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration, and only that one, begin where the checkpoint was."""
        self.first_step = state["step"]

    def __iter__(self) -> Iterator[Batch]:
        first, self.first_step = self.first_step, 0
        order = self.sampler.order()
        for step in range(first, self.length):
            self.served = step + 1
            yield self.batch(order, step)

    def batch(self, order: Tensor, step: int) -> Batch:
        """This rank's part of one batch of the sampler's current epoch."""
        end = self.used if step == self.length - 1 else (step + 1) * self.batch_size
        index = order[step * self.batch_size : end]
        draws: dict[str, Tensor] = {}
        if self.augment is not None:
            draws = self.augment.draw(len(index), stream(self.seed, self.sampler.epoch, step))
        part = slice(len(index) * self.rank // self.world_size, len(index) * (self.rank + 1) // self.world_size)
        index, draws = index[part], {name: draw[part] for name, draw in draws.items()}
        label = None if self.labels is None else self.labels[index]
        batch = Batch(self.images[index], label, index, draws)
        return _pin(batch) if self.pin_memory else batch


def _pin(batch: Batch) -> Batch:
    label = None if batch.label is None else batch.label.pin_memory()
    draws = {name: draw.pin_memory() for name, draw in batch.draws.items()}
    return Batch(batch.image.pin_memory(), label, batch.index.pin_memory(), draws)

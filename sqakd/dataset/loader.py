"""Batches taken directly from a uint8 tensor, without worker processes, with reproducible random numbers.

The permutation is a function of (seed, epoch), the augmentation of (seed, epoch, step). Every rank draws the numbers of
the whole global batch and keeps its own part, so that two ranks together process the same images as one. An incomplete
last batch is merged into the batch before it if a rank would get no image of it, or, in training, fewer than two: batch
normalization of a vector needs two.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sqakd.dataset.batch import Batch
from sqakd.dataset.errors import DataError
from sqakd.dataset.transforms.augment import Augment
from sqakd.randomness import stream

SMALLEST_BATCH = 2  # images of a rank's part of a training batch


class EpochSampler:
    """The order of the images in each epoch. Lightning calls `set_epoch` before an epoch starts."""

    def __init__(self, *, length: int, seed: int, shuffle: bool) -> None:
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def order(self) -> Tensor:
        """Return the positions [length] of all images, each once."""
        if not self.shuffle:
            return torch.arange(self.length)
        return torch.randperm(self.length, generator=stream(self.seed, self.epoch, "order"))


class Loader:
    """An iterable over the batches of one epoch.

    Args:
        images: uint8 [N, C, H, W]; may be mapped from a file.
        labels: int64 [N], or None.
        batch_size: images of one batch, over all ranks.
        shuffle: whether each epoch has a new random order, as in training.
        augment: augmentation whose random numbers are drawn here and applied later, on the device; None in evaluation.
        seed: seed of the order and of the augmentation.
        rank: number of this process, which selects its part of each batch.
        world_size: number of processes, and so of parts of each batch.
        drop_last: whether to omit an incomplete last batch.
        pin_memory: whether to pin batches in memory, for faster copies to a CUDA device.

    Raises:
        DataError: if the images do not fill one batch, or if the parts of a batch are too small.
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
        per_device = SMALLEST_BATCH if shuffle else 1
        smallest = world_size * per_device
        if batch_size < smallest:
            raise DataError(
                f"batch size {batch_size} on {world_size} devices: expected at least {smallest}, {per_device} for each",
                topic="data.small_batch",
            )
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.sampler = EpochSampler(length=len(images), seed=seed, shuffle=shuffle)
        self.batch_sampler = None  # Lightning reads this attribute of every loader that has a sampler
        self.augment, self.seed, self.rank, self.world_size = augment, seed, rank, world_size
        self.pin_memory = pin_memory
        full, rest = divmod(len(images), batch_size)
        fewest = batch_size if drop_last else smallest
        self.length = full + (rest >= fewest)
        if self.length == 0:
            raise DataError(
                f"{len(images)} images make no batch of batch size {batch_size} on {world_size} devices; expected at"
                f" least {fewest}",
                topic="data.no_batch",
            )
        self.used = full * batch_size if drop_last else len(images)
        self.first_step = 0  # step at which the next iteration starts, other than 0 only after a resume
        self.served = 0  # batches of the current epoch that were yielded or skipped

    def __len__(self) -> int:
        return self.length

    @property
    def part_size(self) -> int:
        """This rank's images of a whole batch."""
        whole = min(self.batch_size, len(self.images))
        return whole * (self.rank + 1) // self.world_size - whole * self.rank // self.world_size

    def state_dict(self) -> dict[str, int]:
        """Return the loader's position in its epoch, which Lightning stores in the checkpoint."""
        return {"step": self.served % self.length}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration begin at the checkpoint's position; later iterations begin at step 0."""
        self.first_step = state["step"]

    def __iter__(self) -> Iterator[Batch]:
        first, self.first_step = self.first_step, 0
        order = self.sampler.order()
        for step in range(first, self.length):
            self.served = step + 1
            yield self.batch(order, step)

    def batch(self, order: Tensor, step: int) -> Batch:
        """Return this rank's part of one batch of the sampler's current epoch."""
        end = self.used if step == self.length - 1 else (step + 1) * self.batch_size
        index = order[step * self.batch_size : end]  # of the global batch
        draws: dict[str, Tensor] = {}
        if self.augment is not None:
            draws = self.augment.draw(len(index), stream(self.seed, self.sampler.epoch, step))
        # The draws above are those of the global batch; each rank keeps the part that belongs to its images.
        part = slice(len(index) * self.rank // self.world_size, len(index) * (self.rank + 1) // self.world_size)
        index, draws = index[part], {name: draw[part] for name, draw in draws.items()}
        label = None if self.labels is None else self.labels[index]
        batch = Batch(self.images[index], label, index, draws)
        return _pin(batch) if self.pin_memory else batch


def _pin(batch: Batch) -> Batch:
    """Return a copy of a batch in pinned memory."""
    label = None if batch.label is None else batch.label.pin_memory()
    draws = {name: draw.pin_memory() for name, draw in batch.draws.items()}
    return Batch(batch.image.pin_memory(), label, batch.index.pin_memory(), draws)

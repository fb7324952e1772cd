"""Batches of any loader as the training reads them: a length, one shape, finite values, and the project's own batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from itertools import chain, islice
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from sqakd.dataset.batch import Batch
from sqakd.errors import SqakdError
from sqakd.library.batches import Batches, Key, check_finite, check_shape, images_of, labels_of
from sqakd.numbers import check_whole


class Stream:
    """An iterable over the batches of one epoch.

    An iterator, which can be read only once, is not rewound: the next epoch continues where the last one ended.

    Args:
        batches: an iterable of batches, or one tensor, which is a single batch.
        key: place of the images in a batch.
        steps: batches of one epoch; None: all that there are.
        epochs: how often the batches are read.
        shape: channels, height and width that the images must have; None: those of the first batch.

    Attributes:
        first: images of the first batch [N, C, H, W].
        labelled: whether the first batch is an (image, label) batch.

    Raises:
        SqakdError: if the number of batches is unknown, or the batches cannot be read.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        key: Key = None,
        steps: int | None = None,
        epochs: int = 1,
        shape: Sequence[int] | None = None,
    ) -> None:
        source = [batches] if isinstance(batches, Tensor) else batches
        if not hasattr(source, "__iter__") or isinstance(source, str | Mapping):
            raise SqakdError(f"found {type(batches).__name__}; expected an iterable of batches of images")
        check_whole("epochs", epochs, minimum=0)
        if steps is not None:
            check_whole("steps", steps)
        self.key, self.once = key, isinstance(source, Iterator)
        iterator: Iterator[Any] = iter(source)
        try:
            start = next(iterator)
        except StopIteration:
            raise SqakdError("the images end before the first batch") from None
        # The batch that was read to learn the shape is put back, where the source cannot be read again.
        self.source = chain([start], iterator) if self.once else source
        self.steps = _length(source, steps)
        self.first = check_finite(images_of(start, key))
        if shape is not None:
            check_shape(self.first, shape)
        self.shape = list(self.first.shape[1:])
        self.labelled = labels_of(start) is not None

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        found, position = 0, 0
        for batch in islice(self.source, self.steps):
            images = images_of(batch, self.key)
            check_shape(images, self.shape)
            found += 1
            index = torch.arange(position, position + len(images))
            position += len(images)
            if images.device.type == "cpu":  # the check would wait for a GPU at each batch
                check_finite(images)
            yield Batch(images, labels_of(batch), index, {})
        if found < self.steps:
            again = "; an iterator can be read only once, so give a list or a DataLoader" if self.once else ""
            raise SqakdError(f"the images end after {found} of {self.steps} batches of an epoch{again}")


class Images(pl.LightningDataModule):
    """Training and validation batches for Lightning and for the scores.

    Args:
        training: batches of one epoch of training.
        validation: batches for the scores; None: the training batches, or the first of them if they can be read only
            once.
    """

    def __init__(self, training: Stream, validation: Stream | None) -> None:
        super().__init__()
        self.training = training
        if validation is None:
            validation = Stream(training.first) if training.once else training
        # The scores are measured several times, so an iterator is read into memory.
        self.validation = [*validation] if validation.once else validation
        self.labelled = validation.labelled

    def train_dataloader(self) -> Stream:
        """Return the batches of one epoch."""
        return self.training

    def val_dataloader(self) -> Any:
        """Return the batches for the scores."""
        return self.validation

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Return the batch: its images are prepared already."""
        return batch

    def probe_batches(self, *, count: int, size: int, epoch: int) -> list[Batch]:
        """Return the first batches of an epoch; from an iterator, copies of the first batch.

        Args:
            count: how many.
            size: images of one batch, which the source has decided already.
            epoch: unused, because the order of the images is that of the source.
        """
        if self.training.once:
            return [*Stream(self.training.first)][:count]
        return [*islice(self.training, count)]


def _length(source: Any, steps: int | None) -> int:
    """Return the number of batches of one epoch.

    Raises:
        SqakdError: if it is unknown.
    """
    if steps is not None:
        return steps
    if isinstance(source, Sized):
        with suppress(TypeError):  # a DataLoader of an IterableDataset
            return len(source)
    raise SqakdError("the images have no length, so that the end of an epoch is unknown; expected steps=NUMBER as well")

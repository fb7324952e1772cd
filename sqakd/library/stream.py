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
from sqakd.library.batches import AnyBatch, Batches, Key, check_finite, check_shape, images_of, labels_of
from sqakd.numbers import check_whole


class Stream:
    """An iterable over the batches of one epoch.

    An iterator, which can be read only once, is not rewound: the next epoch continues where the last one ended.

    Args:
        batches: an iterable of batches, or one tensor, which is a single batch.
        key: place of the images in a batch. With a function no labels are read.
        steps: batches of one epoch; None: all that there are.
        shape: channels, height and width that the images must have; None: those of the first batch.
        classes: number of classes of the teacher; None: labels are not read.
        name: of the images in messages, such as "validation images".

    Attributes:
        first: images of the first batch [N, C, H, W].
        classes: as above; it may be set later, once it is known.

    Raises:
        SqakdError: if the number of batches is unknown, or the batches cannot be read.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        key: Key = None,
        steps: int | None = None,
        shape: Sequence[int] | None = None,
        classes: int | None = None,
        name: str = "images",
    ) -> None:
        source = [batches] if isinstance(batches, Tensor) else batches
        if not hasattr(source, "__iter__") or isinstance(source, str | Mapping):
            raise SqakdError(f"found {type(batches).__name__}; expected an iterable of batches of images")
        if steps is not None:
            check_whole("steps", steps)
        self.key, self.once = key, isinstance(source, Iterator)
        iterator: Iterator[Any] = iter(source)
        try:
            start = next(iterator)
        except StopIteration:
            raise SqakdError(f"the {name} end before the first batch") from None
        # The batch that was read to learn the shape is put back, where the source cannot be read again.
        self.source = chain([start], iterator) if self.once else source
        self.steps = _length(source, steps, name)
        self.first = check_finite(images_of(start, key))
        if shape is not None:
            check_shape(self.first, shape)
        self.shape = list(self.first.shape[1:])
        self.classes, self.first_label = classes, self._label(start)

    @property
    def labelled(self) -> bool:
        """Whether the first batch has labels: what follows the images is one number of a class for each image."""
        return self.first_label is not None and self._names_classes(self.first_label, len(self.first))

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        found, position, labelled = 0, 0, self.labelled
        for batch in islice(self.source, self.steps):
            images = images_of(batch, self.key)
            check_shape(images, self.shape)
            found += 1
            index = torch.arange(position, position + len(images))
            position += len(images)
            if images.device.type == "cpu":  # the check would wait for a GPU at each batch
                check_finite(images)
            yield Batch(images, self._checked(batch, len(images)) if labelled else None, index, {})
        if found < self.steps:
            again = "; an iterator can be read only once, so give a list or a DataLoader" if self.once else ""
            raise SqakdError(f"the images end after {found} of {self.steps} batches of an epoch{again}")

    def _label(self, batch: AnyBatch) -> Tensor | None:
        """Return what may be the labels of a batch; a function as key chooses the images alone."""
        return None if callable(self.key) else labels_of(batch)

    def _checked(self, batch: AnyBatch, images: int) -> Tensor:
        """Return the labels of a batch after a first batch with labels.

        Raises:
            SqakdError: if this batch has none.
        """
        label = self._label(batch)
        if label is None or (label.device.type == "cpu" and not self._names_classes(label, images)):
            found = "none" if label is None or not len(label) else f"{len(label)} from {label.min()} to {label.max()}"
            raise SqakdError(
                f"the labels of a batch with {images} images: found {found}; expected a class from 0 to"
                f" {(self.classes or 0) - 1} for each, as in the first batch. If they are no labels, use"
                f" key=lambda batch: batch[0]"
            )
        return label

    def _names_classes(self, label: Tensor, images: int) -> bool:
        """Return whether labels are one number of a class for each image."""
        return self.classes is not None and len(label) == images and bool(((label >= 0) & (label < self.classes)).all())


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
        if validation is not None:
            training.classes = None  # no score is about the training images, so nobody reads their labels
        else:
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


def _length(source: Any, steps: int | None, name: str) -> int:
    """Return the number of batches of one epoch.

    Raises:
        SqakdError: if it is unknown.
    """
    if steps is not None:
        return steps
    if isinstance(source, Sized):
        with suppress(TypeError):  # a DataLoader of an IterableDataset
            return len(source)
    advice = "steps=NUMBER as well" if name == "images" else "a list of batches, or a loader with a length"
    raise SqakdError(f"the {name} have no length, so that the end of an epoch is unknown; expected {advice}")

"""The base class of all data sets: loaders, augmentation on the device, batches for calibration and curvature."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from sqakd.dataset.batch import Batch
from sqakd.dataset.checks import check_classes, check_labels, check_mean, check_std
from sqakd.dataset.errors import DataError
from sqakd.dataset.loader import Loader
from sqakd.dataset.split import split_by_share, subset
from sqakd.dataset.summary import Summary
from sqakd.dataset.transforms.augment import Augment, Compose, Unchanged, normalize
from sqakd.dataset.transforms.resize import size_text
from sqakd.numbers import check_share, check_whole
from sqakd.randomness import stream


class ImageDataModule(pl.LightningDataModule):
    """Images held as uint8 tensors, augmented and normalised in batches on the training device.

    A data set fills `train_images`, `train_labels`, `val_images`, `val_labels` and `class_names` in `load`,
    and `train_files` and `val_files` if each image is a file of its own. Files that are not used go to `left_out`.

    Args:
        batch_size: training images per batch, over all devices.
        eval_batch_size: images per batch in evaluation.
        seed: seed of the order and of the augmentation.
        mean: mean of each channel, with pixels scaled to 0 .. 1.
        std: standard deviation of each channel, with pixels scaled to 0 .. 1.
        augment: random change of the training images; None prepares them as for evaluation.
        evaluate: preparation for evaluation, [N, C, H, W] -> [N, C, height and width of the network's input], values
            0 .. 255; None leaves the images unchanged.
        drop_last: whether to omit an incomplete last training batch.
        holdout: share of the training images that replaces the validation images, so that a search of hyperparameters
            never sees the validation images; 0 keeps the validation images. Of each class at least one image is held
            out and at least one is kept.
        limit: largest number of training images and of validation images, to try something out; None takes all.

    Raises:
        SqakdError: if an argument has no such value.
    """

    licence: ClassVar[str] = "their terms are not known to this program"  # in a model card, after "The images of ...: "

    def __init__(
        self,
        *,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Augment | None,
        evaluate: Callable[[Tensor], Tensor] | None,
        drop_last: bool,
        holdout: float,
        limit: int | None,
    ) -> None:
        super().__init__()
        check_whole("batch_size", batch_size)
        check_whole("eval_batch_size", eval_batch_size)
        check_whole("seed", seed, minimum=0)
        check_mean(mean)
        check_std(std)
        check_share("holdout", holdout)
        if limit is not None:
            check_whole("limit", limit)
        self.holdout, self.limit = holdout, limit
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.mean, self.std = list(mean), list(std)
        self.statistics: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self.augment, self.evaluate, self.drop_last = augment, evaluate, drop_last
        self.train_images = self.val_images = torch.empty(0, 3, 0, 0, dtype=torch.uint8)
        self.train_labels: Tensor | None = None
        self.val_labels: Tensor | None = None
        self.train_files: list[Path] | None = None
        self.val_files: list[Path] | None = None
        self.class_names: list[str] = []
        self.given_names: list[str] | None = None  # of the classes, if the user gave them
        self.left_out: dict[str, list[Path]] = {}  # files and folders by the reason
        self.val_source: str | None = None  # see Summary
        self.stored_margin = 0  # pixels that a centre crop removed when the images were stored
        self.loaded = False

    @abstractmethod
    def load(self) -> None:
        """Fill images, labels and class names. `setup` calls this method once."""

    def require(self) -> None:
        """Refuse files that are missing and may not be downloaded, without reading any image.

        Raises:
            DataError: naming what is missing.
        """

    def has_labels(self) -> bool:
        """Return whether the images have labels, without reading any image.

        Raises:
            DataError: if files are missing.
        """
        return True

    def fingerprint(self) -> str | None:
        """Return a digest of the images that `load` would read, without reading them.

        Returns:
            The digest; None if the images cannot change, because they are verified by a checksum.
        """
        return None

    def setup(self, stage: str | None = None) -> None:
        """Load the images once, hold some out, limit their number and check their size."""
        if not self.loaded:
            self.load()
            for labels in (self.train_labels, self.val_labels):
                if labels is not None:
                    check_classes(self.class_names)
                    check_labels(labels, self.class_names)
            if self.holdout:
                group = None if self.train_labels is None else self.train_labels.tolist().__getitem__
                rest, held_out = split_by_share(
                    len(self.train_images), self.holdout, group=group, class_name=self._class_text
                )
                self.val_source = f"held out, because holdout={self.holdout}"
                self.val_images, self.val_labels = self.train_images, self.train_labels
                self.val_files = self.train_files
                self._keep("val", held_out)
                self._keep("train", rest)
            if self.limit is not None:
                self._keep("train", subset(len(self.train_images), self.limit))
                self._keep("val", subset(len(self.val_images), self.limit))
            self._check_sizes()
            self.loaded = True

    def _class_text(self, label: int) -> str:
        """Return the name and the index of a class. Names alone may be ambiguous, as those of WordNet are."""
        return f"{self.class_names[label]} (class {label})"

    def _keep(self, part: str, index: Tensor) -> None:
        """Reduce the part "train" or "val" to the images at the positions `index`."""
        for name in (f"{part}_images", f"{part}_labels"):
            if (values := getattr(self, name)) is not None:
                setattr(self, name, values[index])
        if (files := getattr(self, f"{part}_files")) is not None:
            setattr(self, f"{part}_files", [files[i] for i in index.tolist()])

    def _check_sizes(self) -> None:
        """Refuse augmented images of another size than those of evaluation and deployment.

        Raises:
            DataError: if the sizes differ.
        """
        (batch,) = self._draw(1, 1, 0, "size")
        shape = batch.image.shape[1:]
        if shape != self.image_shape:
            raise DataError(
                f"images are {size_text(*shape[1:])} in training (augment) and {size_text(*self.image_shape[1:])} in"
                f" evaluation (evaluate): expected the same size",
                topic="data.sizes",
            )

    def extend(self, steps: Mapping[str, Augment]) -> None:
        """Add named steps to the augmentation. Steps that mix images come last."""
        if steps:
            ordered = sorted(steps.items(), key=lambda item: item[1].mixes)
            self.augment = Compose(steps={"augment": self.augment or Unchanged(self.evaluate), **dict(ordered)})

    @property
    def mixes(self) -> bool:
        """True if a training image may contain parts of other images."""
        return self.augment is not None and self.augment.mixes

    @property
    def labelled(self) -> bool:
        """True if the training images have labels."""
        return self.train_labels is not None

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None for unlabelled images."""
        return len(self.class_names) if self.labelled else None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input."""
        images = self.train_images[:1]
        channels, height, width = (images if self.evaluate is None else self.evaluate(images)).shape[1:]
        return channels, height, width

    def summary(self) -> Summary:
        """Return the numbers of the loaded images and of the files that are left out."""
        return Summary(
            train_images=len(self.train_images),
            val_images=len(self.val_images),
            class_names=self.class_names,
            train_counts=self._counts(self.train_labels),
            val_counts=self._counts(self.val_labels),
            val_source=self.val_source,
            limit=self.limit,
            left_out=self.left_out,
        )

    def _counts(self, labels: Tensor | None) -> list[int] | None:
        """Return the number of images of each class."""
        return None if labels is None else torch.bincount(labels, minlength=len(self.class_names)).tolist()

    def train_dataloader(self) -> Loader:
        """Return the loader of training batches, with a new order and new augmentation in each epoch."""
        return self._loader(self.train_images, self.train_labels, training=True)

    def val_dataloader(self) -> Loader:
        """Return the loader of validation batches, which yields each image once and without augmentation."""
        return self._loader(self.val_images, self.val_labels, training=False)

    @property
    def _may_pin(self) -> bool:
        """Whether a trainer on a GPU reads the batches. Pinned memory occupies a GPU, so other readers get none."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _loader(self, images: Tensor, labels: Tensor | None, *, training: bool) -> Loader:
        return Loader(
            images=images,
            labels=labels,
            batch_size=self.batch_size if training else self.eval_batch_size,
            shuffle=training,
            augment=self.augment if training else None,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            drop_last=self.drop_last and training,
            pin_memory=self._may_pin,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a training batch or resize an evaluation batch, and normalise it, on the batch's device."""
        image = batch.image
        if image.device not in self.statistics:  # once per device: a copy at each step would make the device wait
            mean, std = (torch.tensor(values, device=image.device) for values in (self.mean, self.std))
            self.statistics[image.device] = mean, std
        if batch.draws and self.augment is not None:
            image = self.augment(image, batch.draws)
        elif self.evaluate is not None:
            image = self.evaluate(image)
        return batch._replace(image=normalize(image, *self.statistics[image.device]))

    def calibration_batch(self, batches: int) -> Tensor:
        """Return augmented, normalised training images [N, C, H, W], the same on every rank.

        Args:
            batches: number of training batches to draw and join, at most `most_calibration_batches`. The images of
                fewer batches are the first ones of more batches.
        """
        return torch.cat([batch.image for batch in self._draw(self.batch_size, batches, 0, "calibration")])

    @property
    def most_calibration_batches(self) -> int:
        """Number of batches, the last one perhaps incomplete, in which each training image is once."""
        return math.ceil(len(self.train_images) / self.batch_size)

    def probe_batches(self, *, count: int, size: int, epoch: int) -> list[Batch]:
        """Return `count` augmented batches of `size` training images, the same on every rank.

        No two batches have an image in common.
        """
        return self._draw(size, count, epoch, "probe")

    def plain_batches(self, *, count: int, size: int, epoch: int) -> list[Batch]:
        """Return batches like `probe_batches`, but prepared as for evaluation."""
        return self._draw(size, count, epoch, "plain", augment=False)

    def _draw(self, size: int, count: int, epoch: int, purpose: str, *, augment: bool = True) -> list[Batch]:
        """Return up to `count` batches of random training images; each purpose has a random stream of its own."""
        generator = stream(self.seed, epoch, purpose)
        order = torch.randperm(len(self.train_images), generator=generator)
        batches = []
        for index in torch.split(order[: size * count], size):
            draws = self.augment.draw(len(index), generator) if self.augment is not None and augment else {}
            label = None if self.train_labels is None else self.train_labels[index]
            batch = Batch(self.train_images[index], label, index, draws)
            batches.append(self.on_after_batch_transfer(batch, 0))
        return batches

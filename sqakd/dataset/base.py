"""What all data sets share: loaders, augmentation on the device, the batches for calibration and curvature."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor

from sqakd.dataset.batch import Batch
from sqakd.dataset.errors import DataError
from sqakd.dataset.loader import Loader
from sqakd.dataset.transforms.augment import Augment, Compose, Unchanged, normalize
from sqakd.randomness import stream

SPLIT_SEED = 0  # which images are held out is part of the data set: it never depends on a run's seed


class ImageDataModule(pl.LightningDataModule):
    """Images held as uint8 tensors, augmented and normalised in batches on the training device.

    A data set fills `train_images`, `train_labels`, `val_images`, `val_labels` and `class_names` in `load`.

    Args:
        batch_size: training images per batch over all devices.
        eval_batch_size: images per batch in evaluation.
        seed: of order and augmentation.
        mean: of each channel, pixels scaled to 0 .. 1.
        std: of each channel.
        augment: random change of the training images, or None: they are then prepared as for evaluation.
        evaluate: how images are prepared for evaluation, [N, C, H, W] -> the same with the network's height and width,
            values 0 .. 255; None leaves them as they are.
        drop_last: leave out an incomplete last training batch.
        holdout: share of the training images that takes the place of the validation images, so that a search of
            hyperparameters never sees the images a result is reported on; 0: none.
        limit: use only so many of the training and of the validation images, to try something out; None: all.
    """

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
        if isinstance(holdout, bool) or not isinstance(holdout, int | float) or not 0 <= holdout < 1:
            raise DataError(f"dataset.holdout={holdout!r}: expected a share of the training images, from 0 to below 1")
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise DataError(f"dataset.limit={limit!r}: expected a number of images, or null for all")
        self.holdout, self.limit = holdout, limit
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.mean, self.std = list(mean), list(std)
        self.statistics: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self.augment, self.evaluate, self.drop_last = augment, evaluate, drop_last
        self.train_images = self.val_images = torch.empty(0, 3, 0, 0, dtype=torch.uint8)
        self.train_labels: Tensor | None = None
        self.val_labels: Tensor | None = None
        self.class_names: list[str] = []
        self.loaded = False

    @abstractmethod
    def load(self) -> None:
        """Fill images, labels and class names; called once."""

    def setup(self, stage: str | None = None) -> None:
        """Load the images unless they are."""
        if not self.loaded:
            self.load()
            if self.holdout:
                self._take_from_training()
            if self.limit is not None:
                self._keep("train", _some(len(self.train_images), self.limit))
                self._keep("val", _some(len(self.val_images), self.limit))
            self._check_sizes()
            self.loaded = True

    def _take_from_training(self) -> None:
        """Part of the training images become the validation images."""
        count = len(self.train_images)
        held_out = _some(count, round(self.holdout * count))
        if not 0 < len(held_out) < count:
            raise DataError(f"dataset.holdout={self.holdout} of {count} training images leaves no image on one side")
        self.val_images, self.val_labels = self.train_images, self.train_labels
        self._keep("val", held_out)
        rest = torch.ones(count, dtype=torch.bool)
        rest[held_out] = False
        self._keep("train", rest.nonzero().flatten())

    def _keep(self, part: str, index: Tensor) -> None:
        """Reduce the images of "train" or "val" to some of them."""
        for name in (f"{part}_images", f"{part}_labels"):
            if (values := getattr(self, name)) is not None:
                setattr(self, name, values[index])

    def _check_sizes(self) -> None:
        """A network is trained on images of the size it is judged and deployed with."""
        (batch,) = self._draw(1, 1, 0, "size")
        seen = batch.image.shape[1:]
        if seen != self.image_shape:
            raise DataError(
                f"images are {_size(seen)} in training (dataset.augment) and {_size(self.image_shape)} in"
                f" evaluation (dataset.evaluate): both are to bring them to the same size"
            )

    def extend(self, steps: Mapping[str, Augment]) -> None:
        """Change the training images further, by steps with names; those that mix images come last."""
        if steps:
            ordered = sorted(steps.items(), key=lambda item: item[1].mixes)
            self.augment = Compose(steps={"augment": self.augment or Unchanged(self.evaluate), **dict(ordered)})

    @property
    def mixes(self) -> bool:
        """Whether training images have parts of others."""
        return self.augment is not None and self.augment.mixes

    @property
    def labelled(self) -> bool:
        return self.train_labels is not None

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None for unlabelled images."""
        return len(self.class_names) if self.labelled else None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width, as the network sees them."""
        images = self.train_images[:1]
        channels, height, width = (images if self.evaluate is None else self.evaluate(images)).shape[1:]
        return channels, height, width

    def train_dataloader(self) -> Loader:
        """Training batches: new order and augmentation each epoch."""
        return self._loader(self.train_images, self.train_labels, training=True)

    def val_dataloader(self) -> Loader:
        """Validation batches: each image once, without augmentation."""
        return self._loader(self.val_images, self.val_labels, training=False)

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
            pin_memory=torch.cuda.is_available(),
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment (training) or bring to size (evaluation), and normalise, where the batch is now."""
        image = batch.image
        if image.device not in self.statistics:  # once per device: a copy to it at each step would stall it
            mean, std = (torch.tensor(values, device=image.device) for values in (self.mean, self.std))
            self.statistics[image.device] = mean, std
        if batch.draws and self.augment is not None:
            image = self.augment(image, batch.draws)
        elif self.evaluate is not None:
            image = self.evaluate(image)
        return batch._replace(image=normalize(image, *self.statistics[image.device]))

    def calibration_batch(self) -> Tensor:
        """Normalised images [N, C, H, W] of the first training batch, the same on every rank."""
        return self._draw(self.batch_size, 1, 0, "calibration")[0].image

    def probe_batches(self, *, count: int, size: int, epoch: int) -> list[Batch]:
        """`count` augmented batches of `size` training images without a common image, the same on every rank."""
        return self._draw(size, count, epoch, "probe")

    def plain_batches(self, *, count: int, size: int, epoch: int) -> list[Batch]:
        """The same, prepared as for evaluation."""
        return self._draw(size, count, epoch, "plain", augment=False)

    def _draw(self, size: int, count: int, epoch: int, purpose: str, *, augment: bool = True) -> list[Batch]:
        generator = stream(self.seed, epoch, purpose)
        order = torch.randperm(len(self.train_images), generator=generator)
        batches = []
        for index in torch.split(order[: size * count], size):
            draws = self.augment.draw(len(index), generator) if self.augment is not None and augment else {}
            label = None if self.train_labels is None else self.train_labels[index]
            batch = Batch(self.train_images[index], label, index, draws)
            batches.append(self.on_after_batch_transfer(batch, 0))
        return batches


def _some(count: int, wanted: int) -> Tensor:
    """Positions of `wanted` of `count` images in ascending order: the same in every run, whatever its seed."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order[:wanted].sort().values


def _size(shape: Sequence[int]) -> str:
    return f"{shape[-2]}x{shape[-1]}"

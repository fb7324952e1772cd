"""Handwritten digits that come with scikit-learn: 1,797 real images, no download.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
The originals are grey 8x8 images with values 0 .. 16. They are enlarged once (bilinear; to 32x32 unless another size is
chosen) and repeated over three channels, so that networks for CIFAR accept them.
"""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.checks import check_side
from sqakd.dataset.errors import DataError
from sqakd.dataset.split import SPLIT_SEED

ORIGINAL_SIZE = 8
LARGEST_SIZE = 512  # 1.4 GB of images, which are enlarged from 8x8
VALIDATION_IMAGES = 360


class Digits(ImageDataModule):
    """1,437 training and 360 validation images in ten classes, with the same split in every run.

    Args:
        image_size: height and width of the enlarged images, at least 8.
        **common: see `ImageDataModule`.
    """

    licence = "CC BY 4.0 (Optical Recognition of Handwritten Digits, UCI Machine Learning Repository)"

    def __init__(self, *, image_size: int, **common: Any) -> None:
        super().__init__(**common)
        check_side("image_size", image_size, minimum=ORIGINAL_SIZE)
        if image_size > LARGEST_SIZE:
            raise DataError(f"image_size={image_size}: expected at most {LARGEST_SIZE} pixels for these small images")
        self.image_size = image_size

    def load(self) -> None:
        data = load_digits()
        grey = torch.from_numpy(data.images).float()[:, None] * (255 / 16)
        images = F.interpolate(grey, size=(self.image_size, self.image_size), mode="bilinear").round().to(torch.uint8)
        images = images.expand(-1, 3, -1, -1)
        labels = torch.from_numpy(data.target).long()
        train, val = train_test_split(
            torch.arange(len(labels)).numpy(),
            test_size=VALIDATION_IMAGES,
            stratify=data.target,
            random_state=SPLIT_SEED,
        )
        self.train_images, self.train_labels = images[train].contiguous(), labels[train]
        self.val_images, self.val_labels = images[val].contiguous(), labels[val]
        self.class_names = [str(digit) for digit in range(10)]

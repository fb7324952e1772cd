"""A data set of the user's own images, of any size and format, with labels or without.

Layouts of `folder`:

    train/CLASS/*.jpg and val/CLASS/*.jpg     labelled
    train/*.jpg and val/*.jpg                 unlabelled
    *.jpg                                     unlabelled; a share, chosen by file name, is held out for validation

If there is no val/, the images of train/ are split in the same way. Each image is decoded once into a uint8 file that
later runs map into memory: the shorter side is resized to `image_size`, then the centre is cropped. `sqakd.images` says
how files become pixels.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.decoded import Decoder
from sqakd.dataset.errors import DataError
from sqakd.dataset.split import split_by_name
from sqakd.images import SUFFIXES, ImageError, channels_first, fit, read_rgb
from sqakd.numbers import check_whole, is_number

LAYOUTS = "train/CLASS/IMAGE and val/CLASS/IMAGE (labelled), train/IMAGE and val/IMAGE, or IMAGE (unlabelled)"


class ImageFolder(ImageDataModule):
    """Images in folders, labelled if `train/` holds class folders.

    Args:
        folder: folder with one of the layouts above.
        image_size: side of the square images, in pixels.
        cache: folder of the decoded images.
        val_fraction: probability of each image to be held out for validation if there is no `val/`; the image's name
            decides.
        unreadable: "refuse" raises an error for files that are not images, "skip" omits them and reports their number.
        **common: see `ImageDataModule`.

    Raises:
        SqakdError: if an argument has no such value.
    """

    def __init__(
        self,
        *,
        folder: str,
        image_size: int,
        cache: str,
        val_fraction: float,
        unreadable: Literal["refuse", "skip"],
        **common: Any,
    ) -> None:
        super().__init__(**common)
        check_whole("image_size", image_size)
        if not is_number(val_fraction) or not 0 < val_fraction < 1:
            raise DataError(f"val_fraction={val_fraction!r}: expected a number between 0 and 1")
        self.folder, self.image_size, self.val_fraction = Path(folder), image_size, val_fraction
        self.decoder = Decoder(cache=cache, unreadable=unreadable)

    def load(self) -> None:
        train, val = self._list_files()
        labelled = self._has_classes(train)
        if labelled:
            self.class_names = self._class_names(train, val)
        self.train_files, self.train_images = self._decode(train)
        self.val_files, self.val_images = self._decode(val)
        if labelled:
            self.train_labels, self.val_labels = self._labels(self.train_files), self._labels(self.val_files)

    def fingerprint(self) -> str | None:
        """Return a digest of the names and sizes of all image files."""
        digest = hashlib.sha256()
        for path in sorted(path for files in self._list_files() for path in files):
            digest.update(f"{self._name(path)}\0{path.stat().st_size}\n".encode())
        return digest.hexdigest()

    def _list_files(self) -> tuple[list[Path], list[Path]]:
        """Return the paths of the training images and of the validation images."""
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is not a folder; expected {LAYOUTS}", topic="data.folder")
        train, val = _images_below(self.folder / "train"), _images_below(self.folder / "val")
        if train and not val:
            return self._hold_out(train)
        if not train:
            train, val = self._hold_out(sorted(p for p in self.folder.iterdir() if _is_image(p)))
        if not train or not val:
            raise DataError(
                f"found {len(train)} training and {len(val)} validation images in {self.folder}; expected {LAYOUTS}"
            )
        return train, val

    def _hold_out(self, files: list[Path]) -> tuple[list[Path], list[Path]]:
        """Split the files by their names into training and validation images, each part sorted."""
        train, val = split_by_name(files, self._name, self.val_fraction)
        return sorted(train), sorted(val)

    def _name(self, path: Path) -> str:
        """Return a file's path from the folder, with slashes on every system."""
        return path.relative_to(self.folder).as_posix()

    def _has_classes(self, train: list[Path]) -> bool:
        """Return whether train/ has class folders, and not all training images lie directly in train/."""
        folder = self.folder / "train"
        return (
            folder.is_dir()
            and any(path.is_dir() for path in folder.iterdir())
            and any(path.parent != folder for path in train)
        )

    def _class_names(self, train: list[Path], val: list[Path]) -> list[str]:
        """Return the sorted names of the class folders.

        Raises:
            DataError: if an image is in no class folder, or if a class has no training image.
        """
        loose = [p for p in train + val if p.parent in (self.folder / "train", self.folder / "val")]
        if loose:
            raise DataError(f"{loose[0]} is in no class folder, but other images are; expected {LAYOUTS}")
        folder = self.folder / "train"
        names = sorted(p.name for p in folder.iterdir() if p.is_dir())
        empty = sorted(set(names) - {self._class_of(p) for p in train if folder in p.parents})
        if empty:
            raise DataError(f"class folder(s) without images in {folder}: {', '.join(empty)}")
        unknown = sorted({self._class_of(p) for p in val} - set(names))
        if unknown:
            raise DataError(
                f"val/ has classes that train/ does not have: {', '.join(unknown)}; train/ has {', '.join(names)}"
            )
        return names

    def _class_of(self, path: Path) -> str:
        """Return the class of train/CLASS/IMAGE or val/CLASS/IMAGE."""
        return path.relative_to(self.folder).parts[1]

    def _labels(self, files: list[Path]) -> Tensor:
        position = {name: i for i, name in enumerate(self.class_names)}
        return torch.tensor([position[self._class_of(path)] for path in files])

    def _decode(self, files: list[Path]) -> tuple[list[Path], Tensor]:
        """Return the files that could be read, and their pixels as uint8 [N, 3, image_size, image_size]."""
        size = self.image_size
        facts = [(self._name(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        return self.decoder.decode(files, lambda p: _read(p, size), shape=(3, size, size), facts=[size, facts])


def _read(path: Path, size: int) -> NDArray[np.uint8] | str:
    """Return the pixels [3, size, size] of an image, or a description of the file if it is not an image."""
    try:
        return channels_first(fit(read_rgb(path), size, size))
    except ImageError as error:
        return f"{path} ({error})"


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES


def _images_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if _is_image(path)) if folder.is_dir() else []

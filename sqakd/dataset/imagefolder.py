"""The user's own images, of any size and format, with labels or without.

Layouts under `folder`:

    train/CLASS/*.jpg and val/CLASS/*.jpg     labelled
    train/*.jpg and val/*.jpg                 unlabelled
    *.jpg                                     unlabelled; a share, fixed by name, is held out for validation

Each image is decoded once: shorter side to `image_size`, centre crop, RGB (transparency over black), into one uint8
file that later runs map into memory.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.decoded import UNREADABLE, Decoder, channels_first, read_rgb
from sqakd.dataset.errors import DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
LAYOUTS = "train/CLASS/IMAGE and val/CLASS/IMAGE (labelled), train/IMAGE and val/IMAGE, or IMAGE (unlabelled)"


class ImageFolder(ImageDataModule):
    """Images in folders; labelled if `train/` holds class folders.

    Args:
        folder: see the layouts above.
        image_size: side of the square images, in pixels.
        cache: where decoded images are kept.
        val_fraction: chance of each image to be held out for validation when there is no `val/`; decided by its name.
        unreadable: "refuse" stops at files that are no images, "skip" leaves them out and says how many.
        **common: see `ImageDataModule`.
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
        if not isinstance(image_size, int) or image_size < 1:
            raise DataError(f"dataset.image_size={image_size!r}: expected a whole number of pixels")
        if not 0 < val_fraction < 1:
            raise DataError(f"dataset.val_fraction={val_fraction}: expected a number between 0 and 1")
        self.folder, self.image_size, self.val_fraction = Path(folder), image_size, val_fraction
        self.decoder = Decoder(cache=cache, unreadable=unreadable)

    def load(self) -> None:
        train, val = self._list_files()
        labelled = any(path.parent != self.folder / "train" for path in train) and (self.folder / "train").is_dir()
        if labelled:
            self.class_names = self._class_names(train, val)
        train_kept, self.train_images = self._decode(train)
        val_kept, self.val_images = self._decode(val)
        if labelled:
            self.train_labels, self.val_labels = self._labels(train_kept), self._labels(val_kept)

    def _list_files(self) -> tuple[list[Path], list[Path]]:
        if not self.folder.is_dir():
            raise DataError(f"dataset.folder={self.folder} is not a folder; expected {LAYOUTS}")
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
        """Split by a hash of each file's name, so that adding files moves none of the others; no part stays empty."""
        ranked = sorted(files, key=self._place)
        held_out = sum(self._place(path) < self.val_fraction for path in files)
        cut = min(max(held_out, 1), len(files) - 1) if files else 0
        return sorted(ranked[cut:]), sorted(ranked[:cut])

    def _place(self, path: Path) -> float:
        """0 .. 1, evenly spread."""
        digest = hashlib.blake2b(self._name(path).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") / 2**64

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _class_names(self, train: list[Path], val: list[Path]) -> list[str]:
        loose = [p for p in train + val if p.parent in (self.folder / "train", self.folder / "val")]
        if loose:
            raise DataError(f"{loose[0]} lies beside the class folders; expected {LAYOUTS}")
        names = sorted(p.name for p in (self.folder / "train").iterdir() if p.is_dir())
        empty = sorted(
            set(names)
            - {
                p.relative_to(self.folder / "train").parts[0]
                for p in train
                if p.relative_to(self.folder).parts[0] == "train"
            }
        )
        if empty:
            raise DataError(f"class folder(s) without images in {self.folder / 'train'}: {', '.join(empty)}")
        unknown = sorted({self._class_of(p) for p in val} - set(names))
        if unknown:
            raise DataError(
                f"val/ has classes that train/ has not: {', '.join(unknown)}; train/ has {', '.join(names)}"
            )
        return names

    def _class_of(self, path: Path) -> str:
        return path.relative_to(self.folder).parts[1]

    def _labels(self, files: list[Path]) -> Tensor:
        position = {name: i for i, name in enumerate(self.class_names)}
        return torch.tensor([position[self._class_of(path)] for path in files])

    def _decode(self, files: list[Path]) -> tuple[list[Path], Tensor]:
        """Files that could be read, and their pixels, uint8 [N, 3, image_size, image_size]."""
        size = self.image_size
        facts = [(self._name(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        return self.decoder.decode(files, lambda p: _read(p, size), shape=(3, size, size), facts=[size, facts])


def _read(path: Path, size: int) -> NDArray[np.uint8] | str:
    """Pixels [3, size, size], or a sentence if the file is no image."""
    try:
        rgb = read_rgb(path)
        return channels_first(ImageOps.fit(rgb, (size, size), method=Image.Resampling.BILINEAR))
    except UNREADABLE as error:
        return f"{path} ({type(error).__name__})"


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES


def _images_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if _is_image(path)) if folder.is_dir() else []

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
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from sqakd.dataset.base import ImageDataModule
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
        if unreadable not in ("refuse", "skip"):
            raise DataError(f"dataset.unreadable={unreadable!r}: expected refuse or skip")
        self.folder, self.image_size, self.cache = Path(folder), image_size, Path(cache)
        self.val_fraction, self.unreadable = val_fraction, unreadable

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
        """Files that could be read, and their pixels, uint8 [N, 3, image_size, image_size] mapped from the cache."""
        facts = [(self._name(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        key = hashlib.blake2b(
            json.dumps([self.image_size, self.unreadable, facts]).encode(), digest_size=12
        ).hexdigest()
        pixels, index = self.cache / f"{key}.uint8", self.cache / f"{key}.json"
        try:
            if not self._complete(pixels, index):
                self.cache.mkdir(parents=True, exist_ok=True)
                with FileLock(self.cache / f"{key}.lock"):
                    if not self._complete(pixels, index):
                        self._write(files, pixels, index)
        except OSError as error:
            raise DataError(f"cannot write decoded images to dataset.cache={self.cache}: {error}") from error
        kept = [files[i] for i in json.loads(index.read_text())]
        shape = (len(kept), 3, self.image_size, self.image_size)
        mapped = torch.from_file(str(pixels), shared=False, size=int(np.prod(shape)), dtype=torch.uint8)
        return kept, mapped.view(shape)

    def _complete(self, pixels: Path, index: Path) -> bool:
        """Whether both files are whole; after a loss of power they may be there but empty."""
        try:
            images = len(json.loads(index.read_text()))
            return pixels.stat().st_size == images * 3 * self.image_size**2
        except (FileNotFoundError, ValueError):
            return False

    def _write(self, files: list[Path], pixels: Path, index: Path) -> None:
        part = pixels.with_suffix(f".part{os.getpid()}")
        try:
            with part.open("wb") as out:
                kept, bad = self._decode_into(out, files)
            if (bad and self.unreadable == "refuse") or not kept:
                raise DataError(
                    f"{len(bad)} of {len(files)} files are no readable images: {_some(bad)}; remove them"
                    + (", or type dataset.unreadable=skip" if self.unreadable == "refuse" else "")
                )
            if bad:
                tqdm.write(f"left out {len(bad)} of {len(files)} files that are no readable images: {_some(bad)}")
            part.replace(pixels)
            part.write_text(json.dumps(kept))
            part.replace(index)  # last, because its existence says that the pixels are complete
        finally:
            part.unlink(missing_ok=True)

    def _decode_into(self, out: BinaryIO, files: list[Path]) -> tuple[list[int], list[str]]:
        """Positions of the files whose pixels were written, and a sentence for each other file."""
        kept, bad = [], []
        with ThreadPoolExecutor() as pool:
            images = pool.map(lambda path: _read(path, self.image_size), files)
            for i, image in enumerate(tqdm(images, total=len(files), desc="decoding", unit="image", disable=None)):
                if isinstance(image, str):
                    bad.append(image)
                else:
                    out.write(image.tobytes())
                    kept.append(i)
        return kept, bad


def _read(path: Path, size: int) -> NDArray[np.uint8] | str:
    """Pixels [3, size, size], or a sentence if the file is no image."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # grey with 16 bits, which convert() would cut off at 255
                rgb = Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
            elif image.has_transparency_data:
                over_black = Image.new("RGBA", image.size, (0, 0, 0, 255))
                over_black.alpha_composite(image.convert("RGBA"))
                rgb = over_black.convert("RGB")
            else:
                rgb = image.convert("RGB")
        fitted = ImageOps.fit(rgb, (size, size), method=Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        return f"{path} ({type(error).__name__})"
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """0 .. 65535 -> 0 .. 255."""
    return (pixels.astype(np.float32) / 257).round().clip(0, 255).astype(np.uint8)


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES


def _images_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if _is_image(path)) if folder.is_dir() else []


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

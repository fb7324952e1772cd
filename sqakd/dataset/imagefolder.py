"""A data set of the user's own images, of any size and format, with labels or without.

`sqakd.dataset.layout` lists the layouts of the folder. If it has no validation images, a share of the training images,
chosen by file name, is held out; of each class at least one image is held out and at least one is kept. Each image is
decoded once into a uint8 file that later runs map into memory: the shorter side is resized to `image_size` or to
`resize`, then the centre is cropped. `sqakd.images` says how files become pixels, and `sqakd.image_files` which files
are images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.checks import check_classes, check_side
from sqakd.dataset.class_names import in_order_of, read_class_names
from sqakd.dataset.decoded import UNREADABLE_FILE, Decoder
from sqakd.dataset.errors import DataError
from sqakd.dataset.layout import Layout, read_layout
from sqakd.dataset.split import split_by_name, split_by_share
from sqakd.errors import some
from sqakd.image_files import UNSUPPORTED
from sqakd.images import ImageError, channels_first, fit, read_rgb
from sqakd.numbers import is_number


class ImageFolder(ImageDataModule):
    """Images in folders, labelled if `train/` holds class folders.

    Args:
        folder: folder with one of the layouts of `sqakd.dataset.layout`.
        image_size: side of the square images, in pixels.
        cache: folder of the decoded images.
        val_fraction: probability of each image to be held out for validation if there is no `val/`; the image's name
            decides.
        resize: length of the shorter side before the centre is cropped, in pixels; None for `image_size`.
        classes: names of the classes in the order of the teacher's logits: a list, or a file with one name per line.
            Class folders get their labels in this order; None sorts them by name. Images without labels have no other
            names of classes.
        unreadable: "refuse" raises an error for damaged images and for formats that cannot be read here, "skip" omits
            and reports them. No class may become empty.
        **common: see `ImageDataModule`.

    Raises:
        SqakdError: if an argument has no such value.
    """

    licence = "images of whoever trained this network; their terms are not recorded"

    def __init__(
        self,
        *,
        folder: str,
        image_size: int,
        cache: str,
        val_fraction: float,
        unreadable: Literal["refuse", "skip"],
        resize: int | None,
        classes: str | Sequence[str] | None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        check_side("image_size", image_size)
        if not is_number(val_fraction) or not 0 < val_fraction < 1:
            raise DataError(f"val_fraction={val_fraction!r}: expected a number between 0 and 1")
        if resize is not None:
            check_side("resize", resize, minimum=image_size)
            self.stored_margin = resize - image_size
        self.folder, self.image_size, self.val_fraction = Path(folder), image_size, val_fraction
        self.given_names = None if classes is None else read_class_names(classes)
        self.decoder = Decoder(cache=cache, unreadable=unreadable)

    @cached_property
    def layout(self) -> Layout:
        """The files of the folder, listed once, so that identity, split and pixels are of the same files."""
        return read_layout(self.folder)

    def require(self) -> None:
        assert self.layout  # listing the files refuses a folder without any

    def has_labels(self) -> bool:
        return bool(self.layout.classes)

    @cached_property
    def _names(self) -> dict[Path, str]:
        """Each file's path from the folder, with slashes on every system."""
        return {path: path.relative_to(self.folder).as_posix() for path in (*self.layout.train, *self.layout.val)}

    @cached_property
    def _parts(self) -> tuple[list[Path], list[Path]]:
        """The parts that a training uses. Labelled images are held out with a regard for their classes."""
        return self._split(self._class_of if self.layout.classes else None)

    def load(self) -> None:
        layout = self.layout
        unsupported = layout.left_out.get(UNSUPPORTED, [])
        if unsupported and self.decoder.unreadable == "refuse":
            files = len(unsupported) + len(layout.train) + len(layout.val)
            raise DataError(
                f"{len(unsupported)} of {files} image files have a format that cannot be read here:"
                f" {some([str(path) for path in unsupported])}",
                topic="data.formats",
            )
        if layout.classes:
            check_classes(layout.classes)
        self.class_names, self.left_out = self._class_names(), dict(layout.left_out)
        train, val = self._parts
        if not layout.val:
            self.val_source = "held out by file name"
        self.train_files, self.train_images = self._decode(train)
        self.val_files, self.val_images = self._decode(val)
        unread = sorted({*train, *val} - {*self.train_files, *self.val_files})
        if unread:
            self.left_out[UNREADABLE_FILE] = unread
        if layout.classes:
            self.train_labels, self.val_labels = self._labels(self.train_files), self._labels(self.val_files)

    def fingerprint(self) -> str | None:
        """Return a digest of the names and sizes of all image files, and of the rule that holds some out.

        A split that would leave a class out is repaired. Runs of versions that did not repair such a split had other
        images, so they get another digest.
        """
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for path in sorted([*self.layout.train, *self.layout.val]):
            digest.update(f"{self._names[path]}\0{self.layout.facts[path][0]}\n".encode(errors="surrogateescape"))
        if self.layout.classes and self._is_repaired():
            digest.update(b"every class in both parts\n")
        if self.given_names is not None:
            digest.update("\n".join(["classes", *self.given_names]).encode())
        return digest.hexdigest()

    def _class_names(self) -> list[str]:
        """Return the names of the classes in the order of their labels; none if the images have neither.

        Raises:
            DataError: if the given names are not those of the class folders.
        """
        folders = self.layout.classes
        if self.given_names is None:
            return folders
        return in_order_of(self.given_names, folders) if folders else self.given_names

    def _is_repaired(self) -> bool:
        """Return whether images are held out that would not be held out without a regard for classes."""
        if self._parts != self._split(None):
            return True
        if not self.holdout:
            return False
        classes = [self._class_of(path) for path in self._parts[0]]
        _, plain = split_by_share(len(classes), self.holdout)
        _, held_out = split_by_share(len(classes), self.holdout, group=classes.__getitem__)
        return not torch.equal(plain, held_out)

    def _split(self, group: Callable[[Path], str] | None) -> tuple[list[Path], list[Path]]:
        """Return the training files and the validation files, each sorted.

        Args:
            group: function that returns the class of a file that must be in both parts if some files are held out;
                None to split by the names alone.
        """
        if self.layout.val:
            return self.layout.train, self.layout.val
        train, val = split_by_name(self.layout.train, self._names.__getitem__, self.val_fraction, group=group)
        return sorted(train), sorted(val)

    def _class_of(self, path: Path) -> str:
        """Return the class of train/CLASS/IMAGE or val/CLASS/IMAGE."""
        return self._names[path].split("/")[1]

    def _labels(self, files: list[Path]) -> Tensor:
        position = {name: i for i, name in enumerate(self.class_names)}
        return torch.tensor([position[self._class_of(path)] for path in files])

    def _decode(self, files: list[Path]) -> tuple[list[Path], Tensor]:
        """Return the files that could be read, and their pixels as uint8 [N, 3, image_size, image_size]."""
        size, margin = self.image_size, self.stored_margin
        facts = [(self._names[path], *self.layout.facts[path]) for path in files]
        return self.decoder.decode(
            files,
            lambda path: _read(path, size, margin),
            shape=(3, size, size),
            facts=[[size, margin] if margin else size, facts],
            group=self._class_of if self.layout.classes else None,
        )


def _read(path: Path, size: int, margin: int) -> NDArray[np.uint8] | str:
    """Return the pixels [3, size, size] of an image, or a description of the file if it is not an image."""
    try:
        return channels_first(fit(read_rgb(path), size, size, margin))
    except ImageError as error:
        return f"{path} ({error})"

"""Tiny-ImageNet: 100,000 training and 10,000 validation images of 64x64 in 200 classes.

Source: Stanford CS231n, http://cs231n.stanford.edu/tiny-imagenet-200.zip; classes and images from ImageNet
(Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575). The archive is read without unpacking it; an unpacked folder
is read too:

    tiny-imagenet-200/wnids.txt                     the classes, one WordNet ID per line
    tiny-imagenet-200/words.txt                     WNID <tab> names, separated by commas
    tiny-imagenet-200/train/WNID/images/*.JPEG
    tiny-imagenet-200/val/val_annotations.txt       file <tab> WNID <tab> four numbers of a box
    tiny-imagenet-200/val/images/*.JPEG

The index of a class is the position of its ID in sorted order, as in torchvision's ImageFolder and therefore in
networks trained with ImageFolder; wnids.txt has another order. The images of test/ have no labels and are not read. All
other images are decoded once into a uint8 file of 1.2 GB that is mapped into memory.
"""

from __future__ import annotations

import io
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqakd.dataset.archive import Archive
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.decoded import UNREADABLE, UNREADABLE_FILE, Decoder
from sqakd.dataset.errors import DataError
from sqakd.dataset.tiny_imagenet_lists import LAYOUT, digest, left_out, read_names, read_wnids, train_files, val_files
from sqakd.dataset.transforms.resize import size_text
from sqakd.dataset.tree import FolderTree, Tree, ZipTree
from sqakd.images import channels_first, read_rgb

SIZE = 64
FOLDER = "tiny-imagenet-200"


class TinyImageNet(ImageDataModule):
    """Tiny-ImageNet, with the classes that wnids.txt lists.

    Args:
        root: folder with `tiny-imagenet-200/`, or with the archive `tiny-imagenet-200.zip`.
        download: whether to download the archive if both are missing.
        image_size: side of the network's input, in pixels; `augment` and `evaluate` make images of this size.
        cache: folder of the decoded images.
        unreadable: "refuse" raises an error for files that are not images, "skip" omits them and reports their number.
        **common: see `ImageDataModule`.

    Raises:
        DataError: if `evaluate` makes images of another size than `image_size`.
    """

    url = f"http://cs231n.stanford.edu/{FOLDER}.zip"
    md5 = "90528d7ca1a48142e341f4ef8d21d0de"

    licence = "of ImageNet, whose terms of access allow non-commercial research and education"

    def __init__(
        self,
        *,
        root: str,
        download: bool,
        image_size: int,
        cache: str,
        unreadable: Literal["refuse", "skip"],
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.root, self.download = Path(root), download
        self.decoder = Decoder(cache=cache, unreadable=unreadable)
        self.train_images = torch.empty(0, 3, SIZE, SIZE, dtype=torch.uint8)  # makes image_shape known before loading
        if self.image_shape != (3, image_size, image_size):
            raise DataError(
                f"image_size={image_size}, but evaluate makes images of {size_text(*self.image_shape[1:])} pixels",
                topic="data.image_size",
            )

    def load(self) -> None:
        with self._open() as tree:
            wnids = read_wnids(tree)
            # The training files come first: they reveal a wrong list of classes, which wrong names would hide.
            train = train_files(tree, wnids)
            self.class_names = read_names(tree, wnids)
            val = val_files(tree, wnids)
            self.left_out = left_out(tree, train.keys() | val.keys())
            self.train_images, self.train_labels = self._decode(tree, train, wnids)
            self.val_images, self.val_labels = self._decode(tree, val, wnids)

    def require(self) -> None:
        with self._archive.access():
            if self._unpacked is None:
                self._archive.require(layout=LAYOUT)

    def fingerprint(self) -> str | None:
        """Return a digest of the unpacked folder, which nothing else verifies; None for the archive.

        The digest is of the names and sizes of the images and of the lists of classes and labels.
        """
        with self._archive.access():
            return None if self._unpacked is None else digest(self._unpacked)

    @property
    def _archive(self) -> Archive:
        file = self.root / f"{FOLDER}.zip"
        return Archive(
            dataset="Tiny-ImageNet", file=file, folder=FOLDER, url=self.url, md5=self.md5, download=self.download
        )

    @cached_property
    def _unpacked(self) -> FolderTree | None:
        """The unpacked folder, listed once, so that identity and pixels are of the same files; or None."""
        folder = self.root / FOLDER
        return FolderTree(folder=folder) if folder.is_dir() else None

    def _open(self) -> Tree:
        """Return the unpacked folder or, without unpacking it, the archive."""
        self.require()
        archive, file = self._archive, self._archive.file
        with archive.access():
            if self._unpacked is not None:
                return self._unpacked
            if file.exists():
                archive.verify()  # without the lock, because its file cannot be made in a read-only folder
            else:
                with archive.locked():
                    archive.fetch()
        return ZipTree(archive=file, folder=FOLDER)

    def _decode(self, tree: Tree, files: dict[str, str], wnids: list[str]) -> tuple[Tensor, Tensor]:
        """Return the mapped pixels and the labels of the files that could be read."""
        names = list(files)
        kept, images = self.decoder.decode(
            names,
            lambda name: _pixels(tree, name),
            shape=(3, SIZE, SIZE),
            facts=[FOLDER, [(name, *tree.facts[name]) for name in names]],
            group=lambda name: files[name],
        )
        if unread := sorted(set(names) - set(kept)):
            self.left_out.setdefault(UNREADABLE_FILE, []).extend(Path(name) for name in unread)
        position = {wnid: i for i, wnid in enumerate(wnids)}
        return images, torch.tensor([position[files[name]] for name in kept])


def _pixels(tree: Tree, name: str) -> NDArray[np.uint8] | str:
    """Return the pixels [3, SIZE, SIZE] of an image, or a description of the file if it is not an image.

    Raises:
        DataError: if the image has another size.
    """
    try:
        image = read_rgb(io.BytesIO(tree.read(name)))
    except UNREADABLE as error:
        return f"{tree.path(name)} ({error})"
    if image.size != (SIZE, SIZE):
        raise DataError(
            f"{tree.path(name)} has {size_text(image.height, image.width)} pixels; expected {size_text(SIZE, SIZE)}, as"
            f" all images of Tiny-ImageNet have",
            topic="tiny_imagenet.size",
        )
    return channels_first(image)

"""Tiny-ImageNet: 100,000 training and 10,000 validation images of 64x64 in 200 classes.

Source: Stanford CS231n, http://cs231n.stanford.edu/tiny-imagenet-200.zip; classes and images from ImageNet
(Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575). The archive's folder is read as it comes, unpacked or not:

    tiny-imagenet-200/wnids.txt                     the classes, one WordNet ID per line
    tiny-imagenet-200/words.txt                     WNID <tab> names, separated by commas
    tiny-imagenet-200/train/WNID/images/*.JPEG
    tiny-imagenet-200/val/val_annotations.txt       file <tab> WNID <tab> four numbers of a box
    tiny-imagenet-200/val/images/*.JPEG

A class's index is the place of its ID in sorted order, as in torchvision's ImageFolder and hence in networks trained
with it; wnids.txt itself is in another order. The images of test/ have no labels and are not read. All others are
decoded once into a uint8 file of 1.2 GB that is mapped into memory.
"""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from sqakd.dataset.archive import fetch, verify
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.decoded import UNREADABLE, Decoder, channels_first, read_rgb, some
from sqakd.dataset.errors import DataError
from sqakd.dataset.tree import FolderTree, Tree, ZipTree

SIZE = 64
FOLDER = "tiny-imagenet-200"
ARCHIVE = f"{FOLDER}.zip"
ANNOTATIONS = "val/val_annotations.txt"
LAYOUT = f"wnids.txt, words.txt, train/WNID/images/*.JPEG, {ANNOTATIONS} and val/images/*.JPEG"


class TinyImageNet(ImageDataModule):
    """As many classes as wnids.txt lists.

    Args:
        root: folder with `tiny-imagenet-200/`, or with the archive `tiny-imagenet-200.zip`.
        download: fetch the archive if neither is there.
        image_size: side of the images that the network sees, in pixels; what `augment` and `evaluate` make.
        cache: where decoded images are kept.
        unreadable: "refuse" stops at files that are no images, "skip" leaves them out and says how many.
        **common: see `ImageDataModule`.
    """

    url = f"http://cs231n.stanford.edu/{ARCHIVE}"
    md5 = "90528d7ca1a48142e341f4ef8d21d0de"

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
        self.train_images = torch.empty(0, 3, SIZE, SIZE, dtype=torch.uint8)  # so that image_shape is known at once
        if self.image_shape != (3, image_size, image_size):
            raise DataError(
                f"dataset.image_size={image_size}, but dataset.evaluate makes images of {self.image_shape[1]} pixels:"
                f" give it the same size"
            )

    def load(self) -> None:
        with self._open() as tree:
            wnids = _wnids(tree)
            train = _train_files(tree, wnids)  # first, because it tells a wrong list of classes from wrong names
            self.class_names = _names(tree, wnids)
            self.train_images, self.train_labels = self._decode(tree, train, wnids)
            self.val_images, self.val_labels = self._decode(tree, _val_files(tree, wnids), wnids)

    def _open(self) -> Tree:
        """The folder or, without unpacking it, the archive."""
        folder, archive = self.root / FOLDER, self.root / ARCHIVE
        try:
            if folder.is_dir():
                return FolderTree(folder=folder)
            if archive.exists():
                verify(archive, md5=self.md5)
            elif self.download:
                self.root.mkdir(parents=True, exist_ok=True)
                with FileLock(f"{archive}.lock"):  # many ranks and jobs may want it at the same moment
                    fetch(archive, url=self.url, md5=self.md5)
            else:
                raise DataError(
                    f"Tiny-ImageNet is not in {self.root.resolve()}: expected the file {ARCHIVE} or the folder"
                    f" {FOLDER}/ ({LAYOUT}) there; type dataset.download=true to fetch it, or dataset.root=FOLDER"
                )
        except OSError as error:
            raise DataError(f"cannot use dataset.root={self.root} for Tiny-ImageNet: {error}") from error
        return ZipTree(archive=archive, folder=FOLDER)

    def _decode(self, tree: Tree, files: dict[str, str], wnids: list[str]) -> tuple[Tensor, Tensor]:
        """Mapped pixels and labels of the files that could be read."""
        names = list(files)
        kept, images = self.decoder.decode(
            names,
            lambda name: _pixels(tree, name),
            shape=(3, SIZE, SIZE),
            facts=[FOLDER, [(name, *tree.facts[name]) for name in names]],
        )
        position = {wnid: i for i, wnid in enumerate(wnids)}
        return images, torch.tensor([position[files[name]] for name in kept])


def _pixels(tree: Tree, name: str) -> NDArray[np.uint8] | str:
    """Pixels [3, SIZE, SIZE], or a sentence if the file is no image."""
    try:
        image = read_rgb(io.BytesIO(tree.read(name)))
    except UNREADABLE as error:
        return f"{tree.path(name)} ({type(error).__name__})"
    if image.size != (SIZE, SIZE):
        raise DataError(
            f"{tree.path(name)} has {image.width}x{image.height} pixels and Tiny-ImageNet's images have {SIZE}x{SIZE}:"
            f" put the original there, or use dataset=imagefolder for images of other sizes"
        )
    return channels_first(image)


def _lines(tree: Tree, name: str) -> list[str]:
    if name not in tree.facts:
        raise DataError(f"{tree.path(name)} is missing; expected {LAYOUT}")
    try:
        return tree.read(name).decode("utf-8", errors="replace").splitlines()
    except UNREADABLE as error:
        raise DataError(f"{tree.path(name)} cannot be read: {error}") from error


def _wnids(tree: Tree) -> list[str]:
    """Sorted, so that positions are class indices."""
    listed = [line.strip() for line in _lines(tree, "wnids.txt") if line.strip()]
    twice = [wnid for wnid, count in Counter(listed).items() if count > 1]
    if twice or not listed:
        what = f"lists {some(twice)} more than once" if twice else "is empty"
        raise DataError(f"{tree.path('wnids.txt')} {what}; expected each class's WordNet ID on a line of its own")
    return sorted(listed)


def _names(tree: Tree, wnids: list[str]) -> list[str]:
    """The first of each class's names."""
    words = dict(line.split("\t", 1) for line in _lines(tree, "words.txt") if "\t" in line)
    unnamed = [wnid for wnid in wnids if wnid not in words]
    if unnamed:
        raise DataError(f"{tree.path('words.txt')} has no names for {some(unnamed)}; expected WNID <tab> names")
    return [words[wnid].split(",")[0].strip() for wnid in wnids]


def _is_image(name: str) -> bool:
    return name.lower().endswith((".jpeg", ".jpg")) and not name.startswith(".")


def _train_files(tree: Tree, wnids: list[str]) -> dict[str, str]:
    """Class of each training image, class by class."""
    found: dict[str, list[str]] = {}
    for name in tree.facts:
        part, *inside = name.split("/")
        if part == "train" and len(inside) > 1:
            files = found.setdefault(inside[0], [])
            if len(inside) == 3 and inside[1] == "images" and _is_image(inside[2]):
                files.append(name)
    unknown = sorted(set(found) - set(wnids))
    if unknown:
        raise DataError(
            f"{tree.path('train')} has class folders that wnids.txt does not list: {some(unknown)}; add them there,"
            f" or remove the folders"
        )
    empty = [wnid for wnid in wnids if not found.get(wnid)]
    if empty:
        raise DataError(
            f"{tree.path('train')} has no images of {some(empty)}, which wnids.txt lists: expected"
            f" train/{empty[0]}/images/*.JPEG"
        )
    return {name: wnid for wnid in wnids for name in sorted(found[wnid])}


def _val_files(tree: Tree, wnids: list[str]) -> dict[str, str]:
    """Class of each validation image, by name of the file."""
    where, images = tree.path(ANNOTATIONS), "val/images/"
    known, wnid_of = set(wnids), dict[str, str]()
    for number, line in enumerate(_lines(tree, ANNOTATIONS), 1):
        if not line.strip():
            continue
        file, *rest = line.split("\t")
        if not rest or rest[0] not in known:
            what = f"names the class {rest[0]!r}, which wnids.txt does not list" if rest else "names no class"
            raise DataError(f"line {number} of {where} {what}; expected file <tab> WNID: {line!r}")
        if file in wnid_of:
            raise DataError(f"line {number} of {where} names {file} again; expected one line for each image")
        wnid_of[file] = rest[0]
    there = {n.removeprefix(images) for n in tree.facts if n.startswith(images)}
    there = {name for name in there if "/" not in name and _is_image(name)}
    lost, unnamed = sorted(set(wnid_of) - there), sorted(there - set(wnid_of))
    if lost:
        raise DataError(f"{where} names {len(lost)} image(s) that are not in {tree.path('val/images')}: {some(lost)}")
    if unnamed:
        raise DataError(f"{where} has no line for {len(unnamed)} image(s) in val/images: {some(unnamed)}")
    return {f"{images}{file}": wnid_of[file] for file in sorted(wnid_of)}

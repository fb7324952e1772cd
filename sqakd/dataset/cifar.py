"""CIFAR-10 and CIFAR-100 from torchvision's archives, verified by checksum before anything is unpacked.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". 50,000 training and 10,000 test
images of 32x32; the test images serve as validation, as in the papers.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import extract_archive

from sqakd.dataset.archive import Archive, wrong_checksum
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.errors import DataError


class CIFAR10(ImageDataModule):
    """CIFAR-10, with ten classes.

    Args:
        root: folder with `cifar-10-batches-py/`, or with the archive `cifar-10-python.tar.gz`.
        download: whether to download the archive if it is missing.
        **common: see `ImageDataModule`.
    """

    source: type[datasets.CIFAR10] = datasets.CIFAR10

    licence = "their authors state no licence"

    def __init__(self, *, root: str, download: bool, **common: Any) -> None:
        super().__init__(**common)
        self.root, self.download = Path(root), download

    def load(self) -> None:
        self._unpack()
        self.train_images, self.train_labels, self.class_names = self._read(train=True)
        self.val_images, self.val_labels, _ = self._read(train=False)

    def require(self) -> None:
        folder = self.root / self.source.base_folder
        missing = [name for name in self._listed() if not (folder / name).exists()]
        if missing:
            self._refuse_incomplete(folder, missing)
            self._archive.require()

    def _refuse_incomplete(self, folder: Path, missing: list[str]) -> None:
        """Refuse a folder without some files if they cannot come from the archive."""
        archive = self._archive
        if folder.is_dir() and not archive.file.exists() and not self.download:
            raise DataError(
                f"{folder} lacks {len(missing)} of the {len(self._listed())} files of {archive.dataset}:"
                f" {', '.join(missing)}",
                topic="data.incomplete",
                archive=archive.file.name,
                root=self.root,
            )

    @property
    def _archive(self) -> Archive:
        return Archive(
            dataset=self.source.__name__,
            file=self.root / self.source.filename,
            folder=self.source.base_folder,
            url=self.source.url,
            md5=self.source.tgz_md5,
            download=self.download,
        )

    def _unpack(self) -> None:
        """Make sure that every file is there and has the right checksum."""
        folder, archive = self.root / self.source.base_folder, self._archive
        missing = self._missing(folder)
        if not missing:
            return
        self._refuse_incomplete(folder, missing)
        archive.require()
        with archive.locked():
            if self._missing(folder):  # another process may have unpacked the archive in the meantime
                archive.fetch()
                self._extract(archive.file, folder)

    def _listed(self) -> dict[str, str]:
        """Return the names of all files of the unpacked folder, each with its checksum."""
        meta = self.source.meta
        return dict([*self.source.train_list, *self.source.test_list, (meta["filename"], meta["md5"])])

    def _missing(self, folder: Path) -> list[str]:
        """Return the names of missing files, and verify the files that are there.

        Raises:
            DataError: if files are damaged; all of them are named. Such a file is never unpickled.
        """
        present = {name: md5 for name, md5 in self._listed().items() if (folder / name).exists()}
        damaged = {name: wrong for name, md5 in present.items() if (wrong := wrong_checksum(folder / name, md5))}
        if damaged:
            raise DataError(
                "; ".join(f"{folder / name} is truncated or altered: {wrong}" for name, wrong in damaged.items()),
                topic="data.unpacked",
                files=" and ".join(damaged),
                archive=self.source.filename,
                root=self.root,
            )
        return [name for name in self._listed() if name not in present]

    def _extract(self, archive: Path, folder: Path) -> None:
        """Unpack the archive. Each file appears in `folder` whole or not at all, also for a concurrent job.

        The caller holds the archive's lock, so a scratch folder that exists was left by a killed process. Only missing
        files are put into `folder`; nothing there is replaced.
        """
        scratch = self.root / f".{folder.name}.part"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            extract_archive(str(archive), str(scratch))
            folder.mkdir(exist_ok=True)
            for name in self._missing(folder):
                (scratch / folder.name / name).replace(folder / name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _read(self, *, train: bool) -> tuple[Tensor, Tensor, list[str]]:
        """Return images, labels and class names of one part."""
        try:
            data = self.source(root=str(self.root), train=train)
        except (RuntimeError, OSError, KeyError, ValueError) as error:
            raise DataError(f"cannot read {self.source.__name__} in {self.root}: {error}") from error
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return images, torch.tensor(data.targets), list(data.classes)


class CIFAR100(CIFAR10):
    """CIFAR-100, with a hundred classes; folder `cifar-100-python/`, archive `cifar-100-python.tar.gz`."""

    source = datasets.CIFAR100

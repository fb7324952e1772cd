"""Fashion-MNIST: 70,000 real photographs of clothes, verified by checksum before they are used.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
2017 (https://arxiv.org/abs/1708.07747), MIT licence. The originals are grey 28x28 images. They get a black border of
two pixels, and are repeated over three channels, so that networks for CIFAR accept them as 32x32.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import datasets

from sqakd.dataset.archive import Archive
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.errors import DataError

# The package dataset-fashion-mnist of Debian and Ubuntu. Its archives were compressed again, so theirs have other
# checksums than the original ones.
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
RAW = Path("FashionMNIST/raw")  # where torchvision keeps the files
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
IMAGES_HEADER, LABELS_HEADER = 16, 8  # bytes
SIDE, BORDER = 28, 2  # pixels


class FashionMNIST(ImageDataModule):
    """60,000 training and 10,000 test images in ten classes; the test images serve as validation.

    The four files may be compressed (.gz) or not; of both forms, the uncompressed one is read. They are looked for in
    `root`, in `root/FashionMNIST/raw` (as torchvision has them) and in the folder of Debian's package.

    Args:
        root: folder to look into, and to download to.
        download: whether to download files that are nowhere.
        **common: see `ImageDataModule`.
    """

    source = datasets.FashionMNIST
    # MD5 of the uncompressed files.
    md5: ClassVar[dict[str, str]] = {
        f"train-{IMAGES}": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        f"train-{LABELS}": "9018921c3c673c538a1fc5bad174d6f9",
        f"t10k-{IMAGES}": "8181f5470baa50b63fa0f6fddb340f0a",
        f"t10k-{LABELS}": "15d484375f8d13e6eb1aabb0c3f46965",
    }

    licence = "MIT licence (Zalando SE)"

    def __init__(self, *, root: str, download: bool, **common: Any) -> None:
        super().__init__(**common)
        self.root, self.download = Path(root), download

    def load(self) -> None:
        files = self._files()
        self.train_images, self.train_labels = self._read(files, "train")
        self.val_images, self.val_labels = self._read(files, "t10k")
        self.class_names = list(self.source.classes)

    def require(self) -> None:
        folders = (self.root, self.root / RAW, DEBIAN)
        if not self.download and all(self._missing(folder) for folder in folders):
            found = "; ".join(f"{folder} lacks {', '.join(self._missing(folder))}" for folder in folders)
            raise DataError(
                f"Fashion-MNIST is not complete in any folder: {found}. Each file may end in .gz",
                topic="fashion_mnist.missing",
            )

    def _files(self) -> dict[str, Path]:
        """Return the path of each file, by the name of the uncompressed file.

        Raises:
            DataError: if no folder has all of them, and they may not be downloaded.
        """
        self.require()
        target = self.root / RAW
        for folder in (self.root, target, DEBIAN):
            if not self._missing(folder):
                return self._present(folder)
        for name in self._missing(target):
            self._fetch(target / f"{name}.gz")
        return self._present(target)

    def _present(self, folder: Path) -> dict[str, Path]:
        """Return the paths of the files in a folder, by the name of the uncompressed file."""
        candidates = {name: (folder / name, folder / f"{name}.gz") for name in self.md5}
        return {name: file for name, files in candidates.items() for file in reversed(files) if file.is_file()}

    def _missing(self, folder: Path) -> list[str]:
        """Return the names of the uncompressed files that a folder lacks in both forms."""
        present = self._present(folder)
        return [name for name in self.md5 if name not in present]

    def _fetch(self, file: Path) -> None:
        """Download one file.

        Raises:
            DataError: if the download fails.
        """
        archive = Archive(
            dataset="Fashion-MNIST",
            file=file,
            folder=str(RAW),
            url=self.source.mirrors[0] + file.name,
            md5=dict(self.source.resources)[file.name],
            download=True,
        )
        with archive.locked():
            archive.fetch()

    def _read(self, files: dict[str, Path], part: str) -> tuple[Tensor, Tensor]:
        """Return images [N, 3, 32, 32] and labels [N] of the part "train" or "t10k"."""
        pixels = self._verified(files, f"{part}-{IMAGES}")[IMAGES_HEADER:]
        labels = self._verified(files, f"{part}-{LABELS}")[LABELS_HEADER:]
        grey = F.pad(pixels.view(-1, 1, SIDE, SIDE), [BORDER] * 4)
        return grey.expand(-1, 3, -1, -1).contiguous(), labels.long()

    def _verified(self, files: dict[str, Path], name: str) -> Tensor:
        """Return the bytes of an uncompressed file as a uint8 tensor.

        Raises:
            DataError: if the file cannot be read or is damaged.
        """
        file = files[name]
        try:
            content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"cannot read {file}: {error}", topic="fashion_mnist.damaged", file=file) from error
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != self.md5[name]:
            raise DataError(
                f"{file} is truncated or altered: {len(content):,} uncompressed bytes with MD5 {found}, expected MD5"
                f" {self.md5[name]}",
                topic="fashion_mnist.damaged",
                file=file,
            )
        return torch.frombuffer(bytearray(content), dtype=torch.uint8)

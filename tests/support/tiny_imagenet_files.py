"""A small Tiny-ImageNet for tests: its files, as an archive or as a folder, and the expected content."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_sets import COMMON
from PIL import Image
from torch import Tensor

from sqakd.dataset.tiny_imagenet import TinyImageNet

CLASSES = {
    "n02124075": "Egyptian cat",
    "n01443537": "goldfish",
    "n04067472": "reel",
}  # as in wnids.txt, not sorted
SORTED = sorted(CLASSES)
TRAIN_IMAGES, VAL_IMAGES = 11, 13  # per class, and in total: more than ten, so that sorted names put 10 before 2
MODES = {"train/n01443537/images/n01443537_3.JPEG": "L", "val/images/val_4.JPEG": "CMYK"}


@dataclass
class Tiny:
    """The files of a small data set, and a data module that knows the checksum of its archive."""

    root: Path
    module: type[TinyImageNet] = TinyImageNet
    files: dict[str, bytes] = field(default_factory=dict)
    val: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.root / "tiny-imagenet-200"

    @property
    def archive(self) -> Path:
        return self.root / "tiny-imagenet-200.zip"

    def pack(self) -> None:
        """Write `files` as the archive, with entries for the folders."""
        folders = {f"{parent.as_posix()}/" for name in self.files for parent in Path(name).parents}
        with zipfile.ZipFile(self.archive, "w") as archive:
            for folder in sorted(folders - {"./"}):
                archive.writestr(f"tiny-imagenet-200/{folder}", b"")
            for name, content in self.files.items():
                archive.writestr(f"tiny-imagenet-200/{name}", content, zipfile.ZIP_DEFLATED)
        md5 = hashlib.md5(self.archive.read_bytes()).hexdigest()
        url = "http://127.0.0.1:9/nobody-listens-here.zip"
        self.module = type("TinyImageNet", (TinyImageNet,), {"md5": md5, "url": url})

    def unpack(self) -> None:
        with zipfile.ZipFile(self.archive) as archive:
            archive.extractall(self.root)
        self.archive.unlink()

    def annotate(self) -> None:
        """Write the labels in `val` to the annotations."""
        lines = (f"{name}\t{wnid}\t0\t32\t44\t62\n" for name, wnid in self.val.items())
        self.files["val/val_annotations.txt"] = "".join(lines).encode()

    def make(self, **changes: Any) -> TinyImageNet:
        arguments = COMMON | {
            "root": str(self.root),
            "download": False,
            "image_size": 64,
            "cache": str(self.root.parent / "cache"),
            "unreadable": "refuse",
        }
        return self.module(**arguments | changes)

    def load(self, **changes: Any) -> TinyImageNet:
        data = self.make(**changes)
        data.setup()
        return data

    def names(self, part: str) -> list[str]:
        """Return the paths of a part's images in the order of the data set: by class in training, then by name."""
        return sorted(name for name in self.files if name.startswith(part) and name.endswith(".JPEG"))

    def truth(self, names: list[str]) -> Tensor:
        return torch.stack([pixels(self.files[name]) for name in names])


def jpeg(seed: int, *, mode: str = "RGB", size: int = 64, format: str = "JPEG") -> bytes:
    """Return an encoded image with smooth random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).convert(mode)
    stream = io.BytesIO()
    image.save(stream, format=format)
    return stream.getvalue()


def pixels(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content)) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)


def build(root: Path) -> Tiny:
    """Make a small data set in a new folder `root`, as an archive."""
    root.mkdir()
    tiny = Tiny(root)
    tiny.files["wnids.txt"] = "".join(f"{wnid}\n" for wnid in CLASSES).encode()
    names = {**CLASSES, "n00001740": "entity"}
    tiny.files["words.txt"] = "".join(f"{wnid}\t{name}, other name\n" for wnid, name in names.items()).encode()
    seed = 0
    for wnid in CLASSES:
        boxes = []
        for i in range(TRAIN_IMAGES):
            name = f"train/{wnid}/images/{wnid}_{i}.JPEG"
            tiny.files[name] = jpeg(seed := seed + 1, mode=MODES.get(name, "RGB"))
            boxes.append(f"{wnid}_{i}.JPEG\t0\t0\t63\t63\n")
        tiny.files[f"train/{wnid}/{wnid}_boxes.txt"] = "".join(boxes).encode()
    for i in range(VAL_IMAGES):
        name = f"val_{i}.JPEG"
        tiny.files[f"val/images/{name}"] = jpeg(seed := seed + 1, mode=MODES.get(f"val/images/{name}", "RGB"))
        tiny.val[name] = list(CLASSES)[i * i % 3]
    tiny.annotate()
    tiny.files["test/images/test_0.JPEG"] = b"not read"
    tiny.pack()
    return tiny

"""Fashion-MNIST from small files in its layout: compressed or not, in each folder, damaged, missing, downloaded."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from image_sets import COMMON, DAMAGES, refusal, serving
from numpy.typing import NDArray
from torchvision import datasets

from sqakd.dataset import fashion_mnist
from sqakd.dataset.fashion_mnist import DEBIAN, RAW, FashionMNIST

CONFIG = Path(__file__).parents[2] / "conf/dataset/fashion_mnist.yaml"
COUNTS = {"train": 6, "t10k": 3}


@dataclass
class Tiny:
    """A small Fashion-MNIST whose files are given as bytes, and a data module that knows their checksums."""

    root: Path
    module: type[FashionMNIST]
    files: dict[str, bytes]
    pixels: dict[str, NDArray[np.uint8]]
    labels: dict[str, list[int]]

    def write(self, folder: Path, *, compressed: bool = True, omit: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            if name != omit:
                file = folder / (f"{name}.gz" if compressed else name)
                file.write_bytes(gzip.compress(content) if compressed else content)

    def make(self, **changes: Any) -> FashionMNIST:
        return self.module(**COMMON | {"root": str(self.root), "download": False} | changes)

    def load(self, **changes: Any) -> FashionMNIST:
        data = self.make(**changes)
        data.setup()
        return data

    def assert_loaded(self, data: FashionMNIST) -> None:
        for part, images, labels in (
            ("train", data.train_images, data.train_labels),
            ("t10k", data.val_images, data.val_labels),
        ):
            assert images.dtype == torch.uint8
            assert images.shape == (COUNTS[part], 3, 32, 32)
            bordered = np.pad(self.pixels[part], ((0, 0), (2, 2), (2, 2)))
            assert all(np.array_equal(images[:, channel].numpy(), bordered) for channel in range(3))
            assert labels is not None
            assert labels.dtype == torch.int64
            assert labels.tolist() == self.labels[part]
        assert data.class_names == datasets.FashionMNIST.classes


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """No file anywhere, and no package of Debian."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    rng = np.random.default_rng(0)
    files, pixels, labels = {}, {}, {}
    for part, count in COUNTS.items():
        pixels[part] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels[part] = rng.permutation(10)[:count].tolist()
        shape = b"".join(number.to_bytes(4) for number in (count, 28, 28))
        files[f"{part}-images-idx3-ubyte"] = b"\0\0\x08\x03" + shape + pixels[part].tobytes()
        files[f"{part}-labels-idx1-ubyte"] = b"\0\0\x08\x01" + shape[:4] + bytes(labels[part])
    known = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    return Tiny(tmp_path / "data", type("FashionMNIST", (FashionMNIST,), {"md5": known}), files, pixels, labels)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("place", ["data", f"data/{RAW}", "debian"])
def test_files_are_read_where_they_are(tiny: Tiny, place: str, compressed: bool) -> None:
    folder = tiny.root.parent / place
    tiny.write(folder, compressed=compressed)
    before = sorted(tiny.root.parent.rglob("*"))
    tiny.assert_loaded(tiny.load())
    assert sorted(tiny.root.parent.rglob("*")) == before, "nothing is written"


def test_an_uncompressed_file_is_preferred_to_a_compressed_one(tiny: Tiny) -> None:
    tiny.write(tiny.root, compressed=False)
    for name in tiny.files:
        (tiny.root / f"{name}.gz").write_bytes(b"not read")
    tiny.assert_loaded(tiny.load())


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_file_is_named(tiny: Tiny, damage: str, compressed: bool) -> None:
    tiny.write(tiny.root, compressed=compressed)
    file = next(iter(sorted(tiny.root.iterdir())))
    DAMAGES[damage](file)
    message = refusal(tiny.load)
    assert str(file) in message
    assert f"delete {file}" in message


def test_missing_files_are_named_with_the_ways_to_get_them(tiny: Tiny) -> None:
    tiny.write(tiny.root, omit="t10k-labels-idx1-ubyte")
    message = refusal(tiny.load)
    assert f"{tiny.root} lacks t10k-labels-idx1-ubyte;" in message
    assert "dataset.download=true" in message
    assert "apt install dataset-fashion-mnist" in message
    assert not (tiny.root / RAW).exists()


def test_missing_files_are_downloaded_and_verified(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tiny.root.parent / "server"
    tiny.write(served)
    tiny.write(tiny.root / RAW, omit="t10k-labels-idx1-ubyte")
    checksums = [(file.name, hashlib.md5(file.read_bytes()).hexdigest()) for file in served.iterdir()]
    with serving(served) as address:
        source = type("Source", (datasets.FashionMNIST,), {"mirrors": [f"{address}/"], "resources": checksums})
        monkeypatch.setattr(tiny.module, "source", source)
        tiny.assert_loaded(tiny.load(download=True))
        assert (tiny.root / RAW / "t10k-labels-idx1-ubyte.gz").is_file()
        (tiny.root / RAW / "t10k-labels-idx1-ubyte.gz").unlink()
        (served / "t10k-labels-idx1-ubyte.gz").write_bytes(b"something else")
        assert "cannot download" in refusal(lambda: tiny.load(download=True))
        assert not (tiny.root / RAW / "t10k-labels-idx1-ubyte.gz").exists()


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs the package dataset-fashion-mnist")
def test_the_real_files_have_the_right_checksums_and_classes(tmp_path: Path) -> None:
    data = FashionMNIST(**COMMON | {"root": str(tmp_path), "download": False})
    data.setup()
    assert data.train_labels is not None
    assert torch.bincount(data.train_labels).tolist() == [6000] * 10
    inner, config = data.train_images[:, :, 2:-2, 2:-2].float() / 255, yaml.safe_load(CONFIG.read_text())
    assert config["mean"] == pytest.approx([float(inner.mean())] * 3, abs=1e-4)
    assert config["std"] == pytest.approx([float(inner.std())] * 3, abs=1e-4)

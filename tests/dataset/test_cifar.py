"""CIFAR from small archives in torchvision's layout: unpacked, packed, damaged, missing, downloaded."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import COMMON, DAMAGES, refusal, serving
from numpy.typing import NDArray
from torchvision import datasets
from torchvision.datasets.utils import extract_archive

from sqakd.dataset import cifar
from sqakd.dataset.cifar import CIFAR10, CIFAR100

IMAGES_PER_FILE = 4


@dataclass
class Tiny:
    """A small CIFAR, its expected content, and a data module that knows its checksums."""

    root: Path
    module: type[CIFAR10]
    pixels: dict[str, NDArray[np.uint8]]
    labels: dict[str, list[int]]
    classes: list[str]

    @property
    def source(self) -> type[Any]:
        return self.module.source

    @property
    def folder(self) -> Path:
        return self.root / str(self.source.base_folder)

    @property
    def archive(self) -> Path:
        return self.root / str(self.source.filename)

    def make(self, **changes: Any) -> CIFAR10:
        return self.module(**COMMON | {"root": str(self.root), "download": False} | changes)

    def load(self, **changes: Any) -> CIFAR10:
        data = self.make(**changes)
        data.setup()
        return data

    def assert_loaded(self, data: CIFAR10) -> None:
        train = [name for name in self.pixels if not name.startswith("test")]
        assert data.train_labels is not None
        assert data.val_labels is not None
        assert data.train_images.dtype == data.val_images.dtype == torch.uint8
        assert np.array_equal(data.train_images.numpy(), np.concatenate([self.pixels[name] for name in train]))
        assert data.train_labels.tolist() == [label for name in train for label in self.labels[name]]
        (test,) = set(self.pixels) - set(train)
        assert np.array_equal(data.val_images.numpy(), self.pixels[test])
        assert data.val_labels.tolist() == self.labels[test]
        assert data.train_labels.dtype == torch.int64
        assert data.class_names == self.classes


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


@pytest.fixture(params=[CIFAR10, CIFAR100])
def tiny(tmp_path: Path, request: pytest.FixtureRequest) -> Tiny:
    """A root folder with the archive alone."""
    base: type[CIFAR10] = request.param
    source = base.source
    fine = base is CIFAR100
    rng = np.random.default_rng(0)
    classes = [f"class {i}" for i in range(100 if fine else 10)]
    outside = tmp_path / "outside" / source.base_folder
    outside.mkdir(parents=True)
    pixels, labels = {}, {}
    for name, _ in source.train_list + source.test_list:
        pixels[name] = rng.integers(0, 256, (IMAGES_PER_FILE, 3, 32, 32), dtype=np.uint8)
        labels[name] = rng.integers(0, len(classes), IMAGES_PER_FILE).tolist()
        entry: dict[str, Any] = {
            "batch_label": name,
            "filenames": [f"{name}_{i}.png" for i in range(IMAGES_PER_FILE)],
            "data": pixels[name].reshape(IMAGES_PER_FILE, -1),
        }
        if fine:
            entry |= {"fine_labels": labels[name], "coarse_labels": [0] * IMAGES_PER_FILE}
        else:
            entry |= {"labels": labels[name]}
        (outside / name).write_bytes(pickle.dumps(entry, protocol=2))
    meta = {source.meta["key"]: classes} | ({"coarse_label_names": ["all"]} if fine else {})
    (outside / source.meta["filename"]).write_bytes(pickle.dumps(meta, protocol=2))
    (outside / "readme.html").write_text("also in the real archive")

    root = tmp_path / "data"
    root.mkdir()
    archive = root / source.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(outside, source.base_folder)
    known = {
        "train_list": [[name, md5(outside / name)] for name, _ in source.train_list],
        "test_list": [[name, md5(outside / name)] for name, _ in source.test_list],
        "meta": source.meta | {"md5": md5(outside / source.meta["filename"])},
        "tgz_md5": md5(archive),
        "url": "http://127.0.0.1:9/nobody-listens-here.tar.gz",
    }
    small = type(source.__name__, (source,), known)
    return Tiny(root, type(base.__name__, (base,), {"source": small}), pixels, labels, classes)


def unpack(tiny: Tiny) -> None:
    """Unpack the archive like `tar xf`, then delete the archive."""
    with tarfile.open(tiny.archive) as tar:
        tar.extractall(tiny.root, filter="data")
    tiny.archive.unlink()


def test_checksums_and_addresses_are_those_of_torchvision() -> None:
    assert CIFAR10.source is datasets.CIFAR10
    assert CIFAR100.source is datasets.CIFAR100


def test_unpacked_folder_is_read(tiny: Tiny) -> None:
    unpack(tiny)
    tiny.assert_loaded(tiny.load())
    assert [path.name for path in tiny.root.iterdir()] == [tiny.folder.name], "nothing else is written"


def test_archive_alone_is_unpacked_once(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.assert_loaded(tiny.load())
    assert tiny.archive.exists()
    assert {path.name for path in tiny.root.iterdir()} <= {
        tiny.folder.name,
        tiny.archive.name,
        f"{tiny.archive.name}.lock",
    }

    def refuse(*arguments: object) -> None:
        raise AssertionError("unpacked a second time")

    monkeypatch.setattr(cifar, "extract_archive", refuse)
    tiny.assert_loaded(tiny.load())


def test_folder_that_lacks_a_file_is_completed_from_the_archive(tiny: Tiny) -> None:
    tiny.load()
    name = tiny.source.train_list[-1][0]
    (tiny.folder / name).unlink()
    tiny.assert_loaded(tiny.load())


def test_what_a_killed_process_had_unpacked_is_deleted(tiny: Tiny) -> None:
    left = tiny.root / f".{tiny.folder.name}.part"
    (left / tiny.folder.name).mkdir(parents=True)
    (left / tiny.folder.name / "half").touch()
    tiny.assert_loaded(tiny.load())
    assert not left.exists()


def test_files_that_are_not_of_the_data_set_are_not_replaced(tiny: Tiny) -> None:
    """A folder that lacks a file is completed, and everything else in the folder stays."""
    tiny.load()
    (tiny.folder / tiny.source.train_list[-1][0]).unlink()
    (tiny.folder / "notes.txt").write_text("mine")
    tiny.assert_loaded(tiny.load())
    assert (tiny.folder / "notes.txt").read_text() == "mine"


def test_concurrent_jobs_unpack_once(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments: str) -> None:
        calls.append(arguments)
        extract_archive(*arguments)

    monkeypatch.setattr(cifar, "extract_archive", counted)
    with ThreadPoolExecutor(4) as pool:
        for data in pool.map(lambda _: tiny.load(), range(4)):
            tiny.assert_loaded(data)
    assert len(calls) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_archive_is_refused_before_it_is_opened(
    tiny: Tiny, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("opened")

    DAMAGES[damage](tiny.archive)
    monkeypatch.setattr(tarfile, "open", refuse)
    assert f"{tiny.archive} is truncated or altered" in refusal(tiny.load)
    assert not tiny.folder.exists()


def test_archive_that_was_packed_again_works_once_it_is_unpacked(tiny: Tiny, tmp_path: Path) -> None:
    unpack(tiny)
    with tarfile.open(tiny.archive, "w:gz", compresslevel=1) as tar:
        tar.add(tiny.folder, tiny.folder.name)
    tiny.folder.rename(tmp_path / "unpacked")
    message = refusal(tiny.load)
    assert f"unpack it: the folder {tiny.folder.name}/ in {tiny.root} is used without an archive" in message
    (tmp_path / "unpacked").rename(tiny.folder)
    tiny.assert_loaded(tiny.load())


@pytest.mark.parametrize("which", ["first training file", "test file", "class names"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_named_and_never_unpickled(
    tiny: Tiny, which: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack(tiny)
    names = {
        "first training file": tiny.source.train_list[0][0],
        "test file": tiny.source.test_list[0][0],
        "class names": tiny.source.meta["filename"],
    }
    file = tiny.folder / names[which]
    intact = md5(file)
    DAMAGES[damage](file)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    message = refusal(tiny.load)
    found = f"{file.stat().st_size:,} bytes with MD5 {md5(file)}, expected MD5 {intact}"
    assert f"{file} is truncated or altered: {found}; delete {file.name} alone" in message


def test_all_damaged_files_are_named_and_replaced_after_they_are_deleted(tiny: Tiny) -> None:
    tiny.load()
    (tiny.folder / "notes.txt").write_text("mine")
    damaged = [tiny.folder / name for name in (tiny.source.test_list[0][0], tiny.source.meta["filename"])]
    for file in damaged:
        DAMAGES["altered"](file)
    message = refusal(tiny.load)
    assert all(f"{file} is truncated or altered" in message for file in damaged)
    assert f"delete {damaged[0].name} and {damaged[1].name} alone" in message
    for file in damaged:
        file.unlink()
    tiny.assert_loaded(tiny.load())
    assert (tiny.folder / "notes.txt").exists()


@pytest.mark.parametrize("root_exists", [True, False])
def test_missing_data_is_explained_and_nothing_is_written(tiny: Tiny, root_exists: bool) -> None:
    tiny.archive.unlink()
    if not root_exists:
        tiny.root.rmdir()
    message = refusal(tiny.load)
    for part in (str(tiny.root.resolve()), f"{tiny.folder.name}/", tiny.archive.name, "dataset.download=true"):
        assert part in message
    assert tiny.root.exists() == root_exists


def test_incomplete_folder_without_archive_is_explained(tiny: Tiny) -> None:
    unpack(tiny)
    missing = tiny.source.meta["filename"]
    (tiny.folder / missing).unlink()
    message = refusal(tiny.load)
    number = len(tiny.pixels) + 1
    assert message.startswith(f"{tiny.folder} lacks 1 of the {number} files of {tiny.source.__name__}: {missing}; put")
    assert "dataset.download=true" in message


def test_missing_archive_is_downloaded_on_request(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "server").mkdir()
    served = tiny.archive.rename(tmp_path / "server" / tiny.archive.name)
    with serving(served.parent) as address:
        monkeypatch.setattr(tiny.source, "url", f"{address}/{served.name}")
        tiny.assert_loaded(tiny.load(download=True))
    assert tiny.archive.read_bytes() == served.read_bytes()
    tiny.assert_loaded(tiny.load(download=True))  # without the server

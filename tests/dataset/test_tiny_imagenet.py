"""Tiny-ImageNet from small archives in its layout: packed, unpacked, damaged, missing, downloaded, augmented."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from image_sets import alter, refusal, serving
from numpy.typing import NDArray
from tiny_imagenet_files import CLASSES, SORTED, TRAIN_IMAGES, VAL_IMAGES, Tiny, jpeg, pixels

from sqakd.dataset import tiny_imagenet
from sqakd.dataset.tiny_imagenet import TinyImageNet
from sqakd.dataset.transforms.augment import Compose
from sqakd.dataset.transforms.colour import ColourJitter
from sqakd.dataset.transforms.resize import ResizeCentreCrop, ResizedCropFlip
from sqakd.dataset.tree import Tree

CONFIG = Path(__file__).parents[2] / "conf/dataset/tiny_imagenet.yaml"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    original = tiny_imagenet._pixels

    def noted(tree: Tree, name: str) -> NDArray[np.uint8] | str:
        names.append(name)
        return original(tree, name)

    monkeypatch.setattr(tiny_imagenet, "_pixels", noted)
    return names


def assert_loaded(tiny: Tiny, data: TinyImageNet) -> None:
    assert data.train_labels is not None
    assert data.val_labels is not None
    assert data.train_images.dtype == data.val_images.dtype == torch.uint8
    assert torch.equal(data.train_images, tiny.truth(tiny.names("train")))
    assert torch.equal(data.val_images, tiny.truth(tiny.names("val")))
    assert data.train_labels.tolist() == [i for i in range(3) for _ in range(TRAIN_IMAGES)]
    files = [Path(name).name for name in tiny.names("val")]
    assert data.val_labels.tolist() == [SORTED.index(tiny.val[file]) for file in files]
    assert data.train_labels.dtype == data.val_labels.dtype == torch.int64
    assert data.num_classes == 3


# archive and folder


def test_address_and_checksum_are_those_of_the_published_archive() -> None:
    assert TinyImageNet.url == "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    assert TinyImageNet.md5 == "90528d7ca1a48142e341f4ef8d21d0de"


def test_archive_is_read_without_unpacking_it(tiny: Tiny) -> None:
    assert_loaded(tiny, tiny.load())
    assert [path.name for path in tiny.root.iterdir()] == [tiny.archive.name], "nothing else is written"


def test_unpacked_folder_and_archive_give_the_same_data(tiny: Tiny, decoded: list[str]) -> None:
    packed = tiny.load()
    tiny.unpack()
    unpacked = tiny.load()
    assert len(decoded) == 2 * (3 * TRAIN_IMAGES + VAL_IMAGES)
    assert_loaded(tiny, unpacked)
    for name in ("train_images", "train_labels", "val_images", "val_labels"):
        assert torch.equal(getattr(packed, name), getattr(unpacked, name)), name
    assert packed.class_names == unpacked.class_names
    assert [path.name for path in tiny.root.iterdir()] == [tiny.folder.name], "nothing else is written"


def test_classes_are_sorted_by_id_as_in_torchvisions_image_folder(tiny: Tiny) -> None:
    assert list(CLASSES) != SORTED
    assert tiny.load().class_names == ["goldfish", "Egyptian cat", "reel"]


def test_folder_is_preferred_to_the_archive(tiny: Tiny) -> None:
    archive = tiny.archive.read_bytes()
    tiny.unpack()
    tiny.archive.write_bytes(archive[:100])
    assert_loaded(tiny, tiny.load())


def test_unpacked_folder_has_a_digest_of_its_lists_and_images(tiny: Tiny) -> None:
    assert tiny.make().fingerprint() is None, "the archive has a checksum"
    tiny.unpack()
    before = tiny.make().fingerprint()
    assert before
    (tiny.folder / "train" / SORTED[0] / "boxes.txt").write_text("not read")
    (tiny.folder / "test").mkdir(exist_ok=True)
    (tiny.folder / "test" / "a.JPEG").write_bytes(b"not read")
    data = tiny.load()
    assert data.fingerprint() == tiny.make().fingerprint() == before
    for name in (tiny.names("train")[0], tiny.names("val")[-1], "wnids.txt", "val/val_annotations.txt"):
        file = tiny.folder / name
        content = file.read_bytes()
        file.write_bytes(content + b"more")
        assert tiny.make().fingerprint() != before, name
        file.write_bytes(content)
    annotations = tiny.folder / "val" / "val_annotations.txt"
    annotations.write_bytes(annotations.read_bytes().replace(SORTED[0].encode(), SORTED[1].encode()))
    assert tiny.make().fingerprint() != before, "labels of the same length"


def test_lists_may_have_line_ends_of_windows(tiny: Tiny, both: Callable[[], Tiny]) -> None:
    for name in ("wnids.txt", "words.txt", "val/val_annotations.txt"):
        tiny.files[name] = tiny.files[name].replace(b"\n", b"\r\n") + b"\r\n"
    assert_loaded(tiny, both().load())


def test_other_files_are_ignored(tiny: Tiny, both: Callable[[], Tiny]) -> None:
    for name in ("train/.DS_Store", "train/n01443537/images/._n01443537_0.JPEG", "val/images/Thumbs.db", "val/a.JPEG"):
        tiny.files[name] = b"other"
    data = both().load()
    assert (len(data.train_images), len(data.val_images)) == (3 * TRAIN_IMAGES, VAL_IMAGES)


@pytest.mark.parametrize(("mode", "format"), [("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG")])
def test_all_modes_become_rgb(tiny: Tiny, mode: str, format: str) -> None:
    name = "val/images/val_7.JPEG"
    tiny.files[name] = jpeg(77, mode=mode, format=format)
    tiny.pack()
    image = tiny.load().val_images[tiny.names("val").index(name)]
    assert torch.equal(image, pixels(tiny.files[name]))
    assert (image == image[:1]).all().item() == (mode == "L")


def test_missing_archive_is_downloaded_once_on_request(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server").mkdir()
    served = tiny.archive.rename(tmp_path / "server" / tiny.archive.name)
    tiny.root.rmdir()
    with serving(served.parent) as address, ThreadPoolExecutor(3) as pool:
        monkeypatch.setattr(tiny.module, "url", f"{address}/{served.name}")
        for data in pool.map(lambda _: tiny.load(download=True), range(3)):
            assert_loaded(tiny, data)
    assert tiny.archive.read_bytes() == served.read_bytes()
    assert {path.name for path in tiny.root.iterdir()} <= {tiny.archive.name, f"{tiny.archive.name}.lock"}
    assert_loaded(tiny, tiny.load(download=True))  # without the server


# cache


def test_cache_is_used_again(both: Callable[[], Tiny], decoded: list[str]) -> None:
    tiny = both()
    first = tiny.load()
    assert sorted(decoded) == sorted(tiny.names("train") + tiny.names("val"))
    second = tiny.load()
    assert len(decoded) == 3 * TRAIN_IMAGES + VAL_IMAGES
    assert_loaded(tiny, second)
    assert torch.equal(first.train_images, second.train_images)
    cache = sorted(path.suffix for path in (tiny.root.parent / "cache").iterdir() if path.suffix != ".lock")
    assert cache == [".json", ".json", ".uint8", ".uint8"]


def test_changed_labels_need_no_decoding(tiny: Tiny, both: Callable[[], Tiny], decoded: list[str]) -> None:
    both().load()
    tiny.val["val_3.JPEG"] = next(wnid for wnid in CLASSES if wnid != tiny.val["val_3.JPEG"])
    tiny.annotate()
    if tiny.folder.exists():
        (tiny.folder / "val/val_annotations.txt").write_bytes(tiny.files["val/val_annotations.txt"])
    else:
        tiny.pack()
    assert_loaded(tiny, tiny.load())
    assert len(decoded) == 3 * TRAIN_IMAGES + VAL_IMAGES


# errors


@pytest.mark.parametrize("root_exists", [True, False])
def test_missing_data_is_explained_and_nothing_is_written(tiny: Tiny, root_exists: bool) -> None:
    tiny.archive.unlink()
    if not root_exists:
        tiny.root.rmdir()
    message = refusal(tiny.load)
    for part in (str(tiny.root.resolve()), tiny.archive.name, "train/WNID/images/*.JPEG", "dataset.download=true"):
        assert part in message
    assert tiny.root.exists() == root_exists


@pytest.mark.parametrize("download", [True, False])
def test_damaged_archive_is_refused_before_it_is_opened(
    tiny: Tiny, download: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("opened")

    alter(tiny.archive)
    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    assert f"{tiny.archive} is truncated or altered" in refusal(lambda: tiny.load(download=download))


@pytest.mark.parametrize("unreadable", ["refuse", "skip"])
def test_image_of_another_size_is_refused_and_named(tiny: Tiny, both: Callable[[], Tiny], unreadable: str) -> None:
    name = "train/n02124075/images/n02124075_2.JPEG"
    tiny.files[name] = jpeg(0, size=65)
    message = refusal(lambda: both().load(unreadable=unreadable))
    assert name in message
    assert "65x65" in message
    assert "64x64" in message
    assert "dataset=imagefolder" in message
    assert {file.suffix for file in (tiny.root.parent / "cache").iterdir()} == {".lock"}


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda _: b"", lambda _: b"no image"])
def test_corrupt_images_are_refused_by_name_or_skipped_and_counted(
    tiny: Tiny,
    both: Callable[[], Tiny],
    damage: Callable[[bytes], bytes],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sqakd.dataset.decoded.CHUNK", 5)  # several chunks, the last of which is not full
    broken = ["train/n02124075/images/n02124075_2.JPEG", "train/n02124075/images/n02124075_0.JPEG"]
    for name in [*broken, "val/images/val_3.JPEG"]:
        tiny.files[name] = damage(tiny.files[name])
    message = refusal(both().load)
    assert "2 of 33 files" in message
    assert all(name in message for name in broken)
    assert "dataset.unreadable=skip" in message

    for _ in range(2):  # decoded, then from the cache
        data = tiny.load(unreadable="skip")
        train = [name for name in tiny.names("train") if name not in broken]
        val = [name for name in tiny.names("val") if name != "val/images/val_3.JPEG"]
        assert torch.equal(data.train_images, tiny.truth(train))
        assert data.train_labels is not None
        assert data.train_labels.tolist() == [SORTED.index(name.split("/")[1]) for name in train]
        assert torch.equal(data.val_images, tiny.truth(val))
        assert data.val_labels is not None
        assert data.val_labels.tolist() == [SORTED.index(tiny.val[Path(name).name]) for name in val]
    assert "omitted 2 of 33 files" in "".join(capsys.readouterr())


def test_image_size_must_be_that_of_evaluation(tiny: Tiny) -> None:
    message = refusal(lambda: tiny.make(image_size=224))
    assert message.startswith("image_size=224, but evaluate makes images of 64x64 pixels")
    assert "dataset.evaluate" in message
    message = refusal(lambda: tiny.make(evaluate=ResizeCentreCrop(size=96, margin=8)))
    assert message.startswith("image_size=64, but evaluate makes images of 96x96 pixels")


# augmentation


def trained(tiny: Tiny, size: int = 96, **changes: Any) -> TinyImageNet:
    """Load the data with the augmentation of the configuration, for smaller images."""
    crop = ResizedCropFlip(size=size, area=[0.08, 1.0], ratio=[0.75, 1.3333], flip=True)
    colour = ColourJitter(brightness=0.2, contrast=0.2, saturation=0.2)
    arguments: dict[str, Any] = {
        "image_size": size,
        "augment": Compose(steps={"crop": crop, "colour": colour}),
        "evaluate": ResizeCentreCrop(size=size, margin=32),
    }
    return tiny.load(**arguments | changes)


def test_all_images_have_the_size_of_the_networks_input(tiny: Tiny) -> None:
    data = trained(tiny)
    assert data.image_shape == (3, 96, 96)
    assert data.train_images.shape[1:] == (3, 64, 64)
    assert data.calibration_batch(1).shape == (8, 3, 96, 96)
    assert tiny.make(evaluate=ResizeCentreCrop(size=224, margin=32), image_size=224).image_shape == (3, 224, 224)
    for batch in data.train_dataloader():
        image = data.on_after_batch_transfer(batch, 0).image
        assert image.shape[1:] == (3, 96, 96)
        assert image.min() >= (0 - 0.5) / 0.25 - 1e-5
        assert image.max() <= (1 - 0.5) / 0.25 + 1e-5


def test_evaluation_at_the_stored_size_leaves_images_unchanged(tiny: Tiny) -> None:
    data = trained(tiny, size=64)
    batch = next(iter(data.val_dataloader()))
    expected = (batch.image.float() / 255 - 0.5) / 0.25
    assert torch.allclose(data.on_after_batch_transfer(batch, 0).image, expected, atol=1e-6)
    assert data.image_shape == (3, 64, 64)


def test_configuration_is_that_of_the_paper() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    crop, colour = config["augment"]["steps"]["crop"], config["augment"]["steps"]["colour"]
    assert config["image_size"] == 224
    assert crop["size"] == config["evaluate"]["size"] == "${dataset.image_size}"
    assert config["image_size"] + config["evaluate"]["margin"] == 256
    assert (crop["area"], crop["ratio"], crop["flip"]) == ([0.08, 1.0], [0.75, 1.3333], True)
    assert {colour[name] for name in ("brightness", "contrast", "saturation")} == {0.2}
    assert config["download"] is False

"""Tiny-ImageNet from small archives in its layout: packed, unpacked, damaged, missing, downloaded."""

from __future__ import annotations

import hashlib
import io
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sqakd.dataset import tiny_imagenet
from sqakd.dataset.errors import DataError
from sqakd.dataset.tiny_imagenet import TinyImageNet
from sqakd.dataset.transforms.augment import Compose
from sqakd.dataset.transforms.colour import ColourJitter
from sqakd.dataset.transforms.resize import ResizeCentreCrop, ResizedCropFlip
from sqakd.dataset.tree import Tree

CONFIG = Path(__file__).parents[2] / "conf/dataset/tiny_imagenet.yaml"
CLASSES = {"n02124075": "Egyptian cat", "n01443537": "goldfish", "n04067472": "reel"}  # as in wnids.txt: not sorted
SORTED = sorted(CLASSES)
TRAIN_IMAGES, VAL_IMAGES = 11, 13  # per class, and in all: with two digits, so that 10 comes before 2
MODES = {"train/n01443537/images/n01443537_3.JPEG": "L", "val/images/val_4.JPEG": "CMYK"}


@dataclass
class Tiny:
    """A small data set, packed and not unpacked; its checksum is known to `module`."""

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
        """Write `files` as the archive, with entries for folders too."""
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

    def make(self, **changes: Any) -> TinyImageNet:
        arguments: dict[str, Any] = {
            "root": str(self.root),
            "download": False,
            "image_size": 64,
            "cache": str(self.root.parent / "cache"),
            "unreadable": "refuse",
            "batch_size": 8,
            "eval_batch_size": 4,
            "seed": 0,
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
            "augment": None,
            "evaluate": None,
            "drop_last": False,
            "holdout": 0.0,
            "limit": None,
        }
        return self.module(**arguments | changes)

    def load(self, **changes: Any) -> TinyImageNet:
        data = self.make(**changes)
        data.setup()
        return data

    def names(self, part: str) -> list[str]:
        """In the order of a data set: by class in training, then by name."""
        return sorted(name for name in self.files if name.startswith(part) and name.endswith(".JPEG"))

    def truth(self, names: list[str]) -> Tensor:
        return torch.stack([pixels(self.files[name]) for name in names])

    def refused(self, **changes: Any) -> str:
        with pytest.raises(DataError) as error:
            self.load(**changes)
        message = str(error.value)
        assert "\n" not in message
        return message


def jpeg(seed: int, *, mode: str = "RGB", size: int = 64, format: str = "JPEG") -> bytes:
    """A picture with smooth colours of its own."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).convert(mode)
    stream = io.BytesIO()
    image.save(stream, format=format)
    return stream.getvalue()


def pixels(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content)) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    root = tmp_path / "data"
    root.mkdir()
    tiny = Tiny(root)
    tiny.files["wnids.txt"] = "".join(f"{wnid}\n" for wnid in CLASSES).encode()
    words = {**CLASSES, "n00001740": "entity"}
    tiny.files["words.txt"] = "".join(f"{wnid}\t{name}, other name\n" for wnid, name in words.items()).encode()
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
    annotate(tiny)
    tiny.files["test/images/test_0.JPEG"] = b"not looked at"
    tiny.pack()
    return tiny


def annotate(tiny: Tiny) -> None:
    lines = (f"{name}\t{wnid}\t0\t32\t44\t62\n" for name, wnid in tiny.val.items())
    tiny.files["val/val_annotations.txt"] = "".join(lines).encode()


@pytest.fixture(params=["archive", "folder"])
def both(tiny: Tiny, request: pytest.FixtureRequest) -> Callable[[], Tiny]:
    """What was changed in `files` as an archive or as a folder."""

    def apply() -> Tiny:
        tiny.pack()
        if request.param == "folder":
            tiny.unpack()
        return tiny

    return apply


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files decoded so far."""
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


# What is there ---------------------------------------------------------------------------------------------------


def test_the_real_archive_is_the_known_one() -> None:
    assert TinyImageNet.url == "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    assert TinyImageNet.md5 == "90528d7ca1a48142e341f4ef8d21d0de"


def test_archive_is_read_without_unpacking(tiny: Tiny) -> None:
    assert_loaded(tiny, tiny.load())
    assert [path.name for path in tiny.root.iterdir()] == [tiny.archive.name], "nothing is written beside it"


def test_unpacked_folder_gives_the_same(tiny: Tiny, decoded: list[str]) -> None:
    packed = tiny.load()
    tiny.unpack()
    unpacked = tiny.load()
    assert len(decoded) == 2 * (3 * TRAIN_IMAGES + VAL_IMAGES)
    assert_loaded(tiny, unpacked)
    for name in ("train_images", "train_labels", "val_images", "val_labels"):
        assert torch.equal(getattr(packed, name), getattr(unpacked, name)), name
    assert packed.class_names == unpacked.class_names
    assert [path.name for path in tiny.root.iterdir()] == [tiny.folder.name], "nothing is written beside it"


def test_classes_are_sorted_as_in_torchvisions_image_folder(tiny: Tiny) -> None:
    assert list(CLASSES) != SORTED
    assert tiny.load().class_names == ["goldfish", "Egyptian cat", "reel"]


def test_folder_comes_before_the_archive(tiny: Tiny) -> None:
    archive = tiny.archive.read_bytes()
    tiny.unpack()
    tiny.archive.write_bytes(archive[:100])
    assert_loaded(tiny, tiny.load())


def test_lines_may_end_as_on_windows(tiny: Tiny, both: Callable[[], Tiny]) -> None:
    for name in ("wnids.txt", "words.txt", "val/val_annotations.txt"):
        tiny.files[name] = tiny.files[name].replace(b"\n", b"\r\n") + b"\r\n"
    assert_loaded(tiny, both().load())


def test_other_files_are_not_looked_at(tiny: Tiny, both: Callable[[], Tiny]) -> None:
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


# Cache -----------------------------------------------------------------------------------------------------------


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
    annotate(tiny)
    if tiny.folder.exists():
        (tiny.folder / "val/val_annotations.txt").write_bytes(tiny.files["val/val_annotations.txt"])
    else:
        tiny.pack()
    assert_loaded(tiny, tiny.load())
    assert len(decoded) == 3 * TRAIN_IMAGES + VAL_IMAGES


def test_threads_at_once_decode_once(tiny: Tiny, decoded: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        for data in pool.map(lambda _: tiny.load(), range(4)):
            assert_loaded(tiny, data)
    assert len(decoded) == 3 * TRAIN_IMAGES + VAL_IMAGES


def test_cache_that_cannot_be_written(tiny: Tiny) -> None:
    assert "dataset.cache=" in tiny.refused(cache=str(tiny.archive))


# What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root_exists", [True, False])
def test_missing_data_is_explained(tiny: Tiny, root_exists: bool) -> None:
    tiny.archive.unlink()
    if not root_exists:
        tiny.root.rmdir()
    message = tiny.refused()
    for part in (str(tiny.root.resolve()), tiny.archive.name, "train/WNID/images/*.JPEG", "dataset.download=true"):
        assert part in message
    assert tiny.root.exists() == root_exists, "a refused run leaves nothing behind"


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("how", ["truncated", "altered"])
def test_damaged_archive_is_refused_before_it_is_opened(
    tiny: Tiny, how: str, download: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(tiny.archive.read_bytes())
    content[len(content) // 2] ^= 1
    tiny.archive.write_bytes(content if how == "altered" else content[: len(content) // 2])

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    message = tiny.refused(download=download)
    assert str(tiny.archive) in message
    assert "truncated or altered" in message
    assert "dataset.download=true" in message


def test_root_that_is_a_file(tiny: Tiny) -> None:
    tiny.refused(root=str(tiny.archive))
    assert "dataset.root=" in tiny.refused(root=str(tiny.archive), download=True)


@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
def test_missing_list_is_named(tiny: Tiny, both: Callable[[], Tiny], name: str) -> None:
    del tiny.files[name]
    message = both().refused()
    assert f"{name} is missing" in message
    assert str(tiny.root) in message
    assert "train/WNID/images/*.JPEG" in message


def test_classes_without_a_name(tiny: Tiny, both: Callable[[], Tiny]) -> None:
    tiny.files["words.txt"] = b"n01443537\tgoldfish\nn02124075\n"
    assert "words.txt has no names for n02124075, n04067472" in both().refused()


@pytest.mark.parametrize(("content", "what"), [(b"\n", "is empty"), (b"n1\nn2\nn1\n", "lists n1 more than once")])
def test_wrong_list_of_classes(tiny: Tiny, both: Callable[[], Tiny], content: bytes, what: str) -> None:
    tiny.files["wnids.txt"] = content
    assert f"wnids.txt {what}" in both().refused()


def test_listed_class_without_folder(tiny: Tiny, both: Callable[[], Tiny]) -> None:
    tiny.files["wnids.txt"] += b"n09999999\n"
    tiny.files["words.txt"] += b"n09999999\tnothing\n"
    assert "train has no images of n09999999" in both().refused()


def test_class_folder_that_is_not_listed(tiny: Tiny, both: Callable[[], Tiny]) -> None:
    tiny.files["train/n09999999/images/n09999999_0.JPEG"] = jpeg(0)
    message = both().refused()
    assert "n09999999" in message
    assert "wnids.txt does not list" in message


def test_class_folder_without_images(tiny: Tiny, both: Callable[[], Tiny]) -> None:
    for name in tiny.names("train/n04067472"):
        del tiny.files[name]
    message = both().refused()
    assert "no images of n04067472" in message
    assert "train/n04067472/images/*.JPEG" in message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"val_5.JPEG\tn02124075\t0\t32\t44\t62\n", b"", r"has no line for 1 image.*val_5\.JPEG"),
        (b"val_5.JPEG", b"val_99.JPEG", r"names 1 image.*not in .*images: val_99\.JPEG"),
        (b"val_5.JPEG", b"val_6.JPEG", r"line 7 of .*names val_6\.JPEG again"),
        (b"val_5.JPEG\tn02124075", b"val_5.JPEG\tn07777777", r"line 6 of .*the class 'n07777777'.*wnids\.txt"),
        (b"val_5.JPEG\tn02124075\t0\t32\t44\t62", b"val_5.JPEG", r"line 6 of .*names no class.*'val_5\.JPEG'"),
        (b"val_5.JPEG\tn02124075", b"val_5.JPEG n02124075", r"line 6 of .*file <tab> WNID"),
    ],
)
def test_wrong_annotations(tiny: Tiny, both: Callable[[], Tiny], old: bytes, new: bytes, message: str) -> None:
    tiny.val["val_5.JPEG"] = "n02124075"
    annotate(tiny)
    name = "val/val_annotations.txt"
    assert old in tiny.files[name]
    tiny.files[name] = tiny.files[name].replace(old, new)
    both()
    with pytest.raises(DataError, match=message):
        tiny.load()


@pytest.mark.parametrize("unreadable", ["refuse", "skip"])
def test_image_of_another_size_is_refused_and_named(tiny: Tiny, both: Callable[[], Tiny], unreadable: str) -> None:
    name = "train/n02124075/images/n02124075_2.JPEG"
    tiny.files[name] = jpeg(0, size=65)
    message = both().refused(unreadable=unreadable)
    assert name in message
    assert "65x65" in message
    assert "64x64" in message
    assert not list((tiny.root.parent / "cache").glob("*.part*")), "nothing half written stays"


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda _: b"", lambda _: b"no image"])
def test_corrupt_images_are_named_counted_refused_or_skipped(
    tiny: Tiny,
    both: Callable[[], Tiny],
    damage: Callable[[bytes], bytes],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sqakd.dataset.decoded.CHUNK", 5)  # several, and the last one is not full
    broken = ["train/n02124075/images/n02124075_2.JPEG", "train/n02124075/images/n02124075_0.JPEG"]
    for name in [*broken, "val/images/val_3.JPEG"]:
        tiny.files[name] = damage(tiny.files[name])
    message = both().refused()
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
    assert "left out 2 of 33 files" in "".join(capsys.readouterr())


def test_wrong_options_are_refused_at_construction(tiny: Tiny) -> None:
    with pytest.raises(DataError, match=r"dataset\.unreadable='ignore': expected"):
        tiny.make(unreadable="ignore")
    with pytest.raises(DataError, match=r"dataset\.image_size=224, but dataset\.evaluate makes images of 64 pixels"):
        tiny.make(image_size=224)
    with pytest.raises(DataError, match=r"dataset\.image_size=64, but dataset\.evaluate makes images of 96 pixels"):
        tiny.make(evaluate=ResizeCentreCrop(size=96, margin=8))


# Download, from a server of the test's own -----------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def served(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The archive is not in `root`, but its address leads to it."""
    folder = tmp_path / "server"
    folder.mkdir()
    archive = tiny.archive.rename(folder / tiny.archive.name)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(tiny.module, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
    yield archive
    server.shutdown()
    server.server_close()


def test_download_when_asked(tiny: Tiny, served: Path) -> None:
    shutil.rmtree(tiny.root)
    with ThreadPoolExecutor(3) as pool:
        for data in pool.map(lambda _: tiny.load(download=True), range(3)):
            assert_loaded(tiny, data)
    assert tiny.archive.read_bytes() == served.read_bytes()
    assert {path.name for path in tiny.root.iterdir()} <= {tiny.archive.name, f"{tiny.archive.name}.lock"}
    served.unlink()
    assert_loaded(tiny, tiny.load(download=True))


def test_no_download_unless_asked(tiny: Tiny, served: Path) -> None:
    assert "dataset.download=true" in tiny.refused()


def test_download_of_something_else_leaves_no_archive(tiny: Tiny, served: Path) -> None:
    served.write_bytes(served.read_bytes()[:-1])
    message = tiny.refused(download=True)
    assert tiny.module.url in message
    assert str(tiny.archive) in message
    assert not tiny.archive.exists()


def test_download_without_network(tiny: Tiny) -> None:
    tiny.archive.unlink()
    assert tiny.module.url in tiny.refused(download=True)


# As it is trained ------------------------------------------------------------------------------------------------


def trained(tiny: Tiny, size: int = 96, **changes: Any) -> TinyImageNet:
    """As in the configuration, but smaller."""
    crop = ResizedCropFlip(size=size, area=[0.08, 1.0], ratio=[0.75, 1.3333], flip=True)
    colour = ColourJitter(brightness=0.2, contrast=0.2, saturation=0.2)
    arguments: dict[str, Any] = {
        "image_size": size,
        "augment": Compose(steps={"crop": crop, "colour": colour}),
        "evaluate": ResizeCentreCrop(size=size, margin=32),
    }
    return tiny.load(**arguments | changes)


def epoch_of(data: TinyImageNet, epoch: int, *, start: int = 0) -> list[Tensor]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    loader.load_state_dict({"step": start})
    return [data.on_after_batch_transfer(batch, 0).image for batch in loader]


def test_the_network_sees_the_size_it_was_promised(tiny: Tiny) -> None:
    data = trained(tiny)
    assert data.image_shape == (3, 96, 96)
    assert data.train_images.shape[1:] == (3, 64, 64)
    assert data.calibration_batch().shape == (8, 3, 96, 96)
    assert tiny.make(evaluate=ResizeCentreCrop(size=224, margin=32), image_size=224).image_shape == (3, 224, 224)
    for image in epoch_of(data, 0):
        assert image.shape[1:] == (3, 96, 96)
        assert image.min() >= (0 - 0.5) / 0.25 - 1e-5
        assert image.max() <= (1 - 0.5) / 0.25 + 1e-5


def test_evaluation_at_the_stored_size_leaves_images_as_they_are(tiny: Tiny) -> None:
    data = trained(tiny, size=64)
    batch = next(iter(data.val_dataloader()))
    expected = (batch.image.float() / 255 - 0.5) / 0.25
    assert torch.allclose(data.on_after_batch_transfer(batch, 0).image, expected, atol=1e-6)
    assert data.image_shape == (3, 64, 64)


def test_resumed_epoch_sees_what_the_uninterrupted_one_saw(tiny: Tiny) -> None:
    data = trained(tiny)
    whole = epoch_of(data, 2)
    assert len(whole) == 5
    for start in (1, 3):
        rest = epoch_of(trained(tiny), 2, start=start)
        assert len(rest) == 5 - start
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[start:], strict=True))
    other = epoch_of(data, 3)
    assert not torch.equal(other[0], whole[0])
    assert not torch.equal(epoch_of(trained(tiny, seed=1), 2)[0], whole[0])


def test_two_ranks_together_see_what_one_would_have_seen(tiny: Tiny) -> None:
    data = trained(tiny)
    alone = data.train_dataloader()
    ranks = [data.train_dataloader() for _ in range(2)]
    for rank, loader in enumerate(ranks):
        loader.rank, loader.world_size = rank, 2
    steps = 0
    for batch, *parts in zip(alone, *ranks, strict=True):
        for name, draw in batch.draws.items():
            assert torch.equal(torch.cat([part.draws[name] for part in parts]), draw), name
        whole = data.on_after_batch_transfer(batch, 0).image
        images = torch.cat([data.on_after_batch_transfer(part, 0).image for part in parts])
        assert torch.allclose(images, whole, atol=1e-5)
        steps += 1
    assert steps == 5


def test_configuration_is_the_papers() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    crop, colour = config["augment"]["steps"]["crop"], config["augment"]["steps"]["colour"]
    assert config["image_size"] == 224
    assert crop["size"] == config["evaluate"]["size"] == "${dataset.image_size}"
    assert config["image_size"] + config["evaluate"]["margin"] == 256
    assert (crop["area"], crop["ratio"], crop["flip"]) == ([0.08, 1.0], [0.75, 1.3333], True)
    assert {colour[name] for name in ("brightness", "contrast", "saturation")} == {0.2}
    assert config["download"] is False

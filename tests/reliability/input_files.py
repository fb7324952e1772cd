"""Damaged exports, images, caches and data sets: the files that are inputs, each read by the command that needs it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.reliability import damages
from tests.reliability.case import Case, Expected
from tests.reliability.damages import Damage
from tests.reliability.files import EXPORT, REPORT, Reader, S, paper
from tests.reliability.samples import IMAGES, Samples

FOLDER_OF_IMAGES = ("train.py", *IMAGES)


def cases(samples: Samples) -> Iterator[Case]:
    """Yield all cases of damaged inputs."""
    yield from _exports(samples)
    yield from _images(samples)
    yield from _data_sets(samples)


def _exports(samples: Samples) -> Iterator[Case]:
    export = f"{S}/export-exact"
    words = ("-m", "sqakd.predict", f"{export}/model.onnx", "photo.png")
    predict = Reader(
        "model.onnx",
        lambda: samples.exported,
        f"{export}/model.onnx",
        words,
        Expected.REFUSED,
        extra=lambda folder: shutil.copy(samples.images / "photos/val/cat/cat0.png", folder / "photo.png"),
    )
    yield from predict.cases("damage", damages.generic("model.onnx", flips=12))
    yield predict.case("content", "weights.pt", damages.replace_by_copy(samples.folder / "finished" / S / "weights.pt"))
    record = f"{export}/record.json"
    for name, reads in {"report": REPORT, "export again": EXPORT}.items():
        reader = Reader(f"record of an export, {name}", lambda: samples.exported, record, reads, extra=paper)
        reader = replace(reader, rewritten=("results/", export), names=("record.json", "no record of an export"))
        found = [*list(damages.generic(name))[:6], *list(damages.json_shapes())[:5], *damages.json_keys(name, 4)]
        yield from reader.cases("damage", found if name == "report" else found[::3])


def _images(samples: Samples) -> Iterator[Case]:
    formats = ("png", "jpg", "webp", "bmp", "gif", "tiff", "ppm")
    for suffix in formats:
        file = f"photos/train/cat/one.{suffix}"

        train = Reader(f"image.{suffix}", lambda: samples.images, file, FOLDER_OF_IMAGES, extra=_picture(file))
        found = list(damages.generic(suffix, flips=2))
        yield from train.cases("train", found[: len(found) if suffix == "png" else 5])
        words = ("-m", "sqakd.predict", f"{S}/export-exact/model.onnx", f"one.{suffix}")
        predict = Reader(
            f"image.{suffix}",
            lambda: samples.exported,
            f"one.{suffix}",
            words,
            extra=_picture(f"one.{suffix}"),
        )
        yield from predict.cases("predict", found)
    for part in ("uint8", "json"):
        reader = Reader(
            f"cache of images, {part}", lambda: samples.cached, f"data/cache/train.{part}", FOLDER_OF_IMAGES
        )
        reader = Reader(
            reader.name, reader.sample, reader.file, FOLDER_OF_IMAGES, rewritten=("data/cache/",), names=("cache",)
        )
        for name, damage in list(damages.generic(part))[:13]:
            yield reader.case("damage", name, _of_largest(damage))


def _picture(name: str) -> Damage:
    """Return a function that writes a picture into a folder."""
    return lambda folder: damages.picture(folder / name)


def _of_largest(damage: Damage) -> Damage:
    """Return the damage to the largest file of a suffix in a folder, because the cache's names are hashes."""
    return lambda file: damage(max(file.parent.glob(f"*{file.suffix}"), key=lambda path: path.stat().st_size))


def _data_sets(samples: Samples) -> Iterator[Case]:
    names = {
        "cifar10": ("cifar-10-python.tar.gz", "cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/batches.meta"),
        "cifar100": ("cifar-100-python.tar.gz", "cifar-100-python/train"),
        "tiny_imagenet": ("tiny-imagenet-200.zip",),
    }
    for dataset, files in names.items():
        for file in files:
            words: tuple[str, ...] = (
                "train.py",
                f"dataset={dataset}",
                "model.net.blocks=1",
                "recipe.epochs=1",
                "kd=none",
            )
            reader = Reader(f"data set {dataset}", lambda: samples.images, f"data/{file}", words, Expected.REFUSED)
            for name, content in {"empty": b"", "text": b"404", "zeros": bytes(1000)}.items():
                yield reader.case(Path(file).name, name, _write(content))
            yield reader.case(Path(file).name, "code in a pickle", _made(damages.hostile_pickle))
            yield reader.case(Path(file).name, "folder", _made(Path.mkdir))
    for file in ("wnids.txt", "words.txt", "val/val_annotations.txt", "train/n01443537/images/n01443537_3.JPEG"):
        words = (
            "train.py",
            *("dataset=tiny_imagenet", "model=resnet20", "model.net.blocks=1", "dataset.image_size=64", "kd=none"),
            *("recipe.epochs=1", "teacher.recipe.epochs=1", "trainer.accelerator=cpu", "recipe.batch_size=8"),
            *("dataset.evaluate=null", "quantizer/rounding=ste"),
        )
        reader = Reader(
            "data set tiny_imagenet, unpacked", lambda: samples.tiny_imagenet, f"data/tiny-imagenet-200/{file}", words
        )
        yield from reader.cases(Path(file).name, list(damages.generic(file, flips=1))[:12])


def _write(content: bytes) -> Damage:
    return _made(lambda file: file.write_bytes(content))


def _made(damage: Damage) -> Damage:
    """Return a damage that makes the file's folder first."""

    def make(file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        damage(file)

    return make

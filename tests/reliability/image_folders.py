"""Folders of images as people have them: odd names, links, classes, files that are no images, and nothing at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.reliability.case import Case, Expected
from tests.reliability.data import Change, png, predict, training
from tests.reliability.samples import Samples

REFUSED, EITHER, ACCEPTED = Expected.REFUSED, Expected.EITHER, Expected.ACCEPTED


NAMES = (
    "a\nb",
    "a\rb",
    "a\x1b[2J",
    "a\u202eb",
    "a|b<b>&",
    "a b",
    "-a",
    "a=b,c[d]",
    "a'b\"",
    "é中\U0001f600",
    "a\udcffb",
    "x" * 200,
    "%s{x}",
)


def cases(samples: Samples) -> Iterator[Case]:
    """Yield all cases of folders and names."""
    for name, change, expected, names in _folders():
        yield training(samples, "folder", name, change, expected, names=names)
    for name in NAMES:
        shown = ascii(name)[1:-1][:40]
        yield training(samples, "name of a class", shown, _renamed("train/cat", "val/cat", name=name), EITHER)
        yield training(samples, "name of an image", shown, _renamed("train/cat/cat0.png", name=f"{name}.png"), EITHER)
        damaged = _both(_renamed("train/cat/cat0.png", name=f"{name}.png"), _damage(f"train/cat/{name}.png"))
        yield training(samples, "name of a damaged image", shown, damaged, REFUSED)
        yield predict(samples, "name, predict", f"{name}.png", lambda: png(16, 16, colour=3), EITHER)
        yield predict(samples, "name of a damaged image, predict", f"{name}.png", lambda: b"none", REFUSED)


def _both(*changes: Change) -> Change:
    def change(photos: Path) -> None:
        for one in changes:
            one(photos)

    return change


def _damage(place: str) -> Change:
    return lambda photos: (photos / place).write_bytes(b"none")


def _renamed(*places: str, name: str) -> Change:
    def change(photos: Path) -> None:
        for place in places:
            (photos / place).rename((photos / place).with_name(name))

    return change


def _folders() -> Iterator[tuple[str, Change, Expected, tuple[str, ...]]]:
    """Yield (name, change of the folder photos/, ending, texts of a refusal)."""

    def remove(*places: str) -> Change:
        def change(photos: Path) -> None:
            for place in places:
                path = photos / place
                shutil.rmtree(path) if path.is_dir() else path.unlink()

        return change

    def make(place: str, do: Callable[[Path], object]) -> Change:
        def change(photos: Path) -> None:
            (photos / place).parent.mkdir(parents=True, exist_ok=True)
            do(photos / place)

        return change

    yield "one class", remove("train/dog", "val/dog"), REFUSED, ()
    yield "empty class", make("train/bird", Path.mkdir), EITHER, ()
    yield "empty class in both", _both(make("train/bird", Path.mkdir), make("val/bird", Path.mkdir)), EITHER, ()
    yield (
        "class in val alone",
        make("val/bird/one.png", lambda file: file.write_bytes(png(16, 16, colour=1))),
        REFUSED,
        ("bird",),
    )
    yield (
        "class in train alone",
        make("train/bird/one.png", lambda file: file.write_bytes(png(16, 16, colour=1))),
        EITHER,
        (),
    )
    yield "no val", remove("val"), EITHER, ()
    yield "empty val", _both(remove("val"), make("val", Path.mkdir)), EITHER, ()
    yield "empty train", _both(remove("train"), make("train", Path.mkdir)), REFUSED, ()
    yield "no images", remove("train/cat", "train/dog", "val/cat", "val/dog"), REFUSED, ()
    yield "valid instead of val", lambda photos: (photos / "val").rename(photos / "valid"), EITHER, ()
    yield (
        "validation beside val",
        make("validation/cat/one.png", lambda file: file.write_bytes(png(16, 16, colour=1))),
        EITHER,
        (),
    )
    yield "link to a class", lambda photos: (photos / "train" / "bird").symlink_to("cat"), EITHER, ()
    yield "link to the parent", lambda photos: (photos / "train" / "cat" / "loop").symlink_to(".."), EITHER, ()
    yield "class that links to itself", lambda photos: (photos / "train" / "bird").symlink_to("bird"), EITHER, ()
    yield "dangling link", lambda photos: (photos / "train" / "cat" / "z.png").symlink_to("nowhere"), EITHER, ("z.png",)
    yield (
        "link to a device",
        lambda photos: (photos / "train" / "cat" / "z.png").symlink_to("/dev/zero"),
        EITHER,
        ("z.png",),
    )
    yield "fifo", lambda photos: os.mkfifo(photos / "train" / "cat" / "z.png"), EITHER, ("z.png",)
    yield "folder named as an image", make("train/cat/z.png", Path.mkdir), EITHER, ()
    yield "one image", _both(remove("train", "val"), _alone("train/cat/one.png")), REFUSED, ()
    yield (
        "one image per class",
        _both(remove("train", "val"), _alone("train/cat/one.png"), _alone("train/dog/one.png")),
        EITHER,
        (),
    )
    yield (
        "images beside folders",
        make("train/one.png", lambda file: file.write_bytes(png(16, 16, colour=1))),
        EITHER,
        (),
    )
    yield "deep folders", lambda photos: _deep(photos / "train" / "cat"), EITHER, ()
    yield (
        "hidden folder",
        make("train/.thumbnails/one.png", lambda file: file.write_bytes(png(16, 16, colour=1))),
        EITHER,
        (),
    )
    yield (
        "folder of a tool",
        make("train/__MACOSX/one.png", lambda file: file.write_bytes(png(16, 16, colour=1))),
        EITHER,
        (),
    )
    yield "other files", make("train/cat/notes.txt", lambda file: file.write_text("x")), ACCEPTED, ()
    yield (
        "upper-case suffix",
        lambda photos: (photos / "train/cat/cat0.png").rename(photos / "train/cat/cat0.PNG"),
        ACCEPTED,
        (),
    )
    yield (
        "wrong suffix",
        lambda photos: (photos / "train/cat/cat0.png").rename(photos / "train/cat/cat0.jpg"),
        EITHER,
        (),
    )
    for suffix in ("jfif", "heic", "avif", "svg", "psd", "npy"):
        yield f"half a class in {suffix}", _suffix(suffix), EITHER, ()
    yield "photos is a file", _both(remove("."), lambda photos: photos.write_text("x")), REFUSED, ()
    yield "photos links to itself", _both(remove("."), lambda photos: photos.symlink_to("photos")), REFUSED, ()


def _alone(place: str) -> Change:
    def change(photos: Path) -> None:
        (photos / place).parent.mkdir(parents=True)
        (photos / place).write_bytes(png(16, 16, colour=1))

    return change


def _deep(folder: Path) -> None:
    for _ in range(60):
        folder = folder / "deeper"
    folder.mkdir(parents=True)
    (folder / "one.png").write_bytes(png(16, 16, colour=1))


def _suffix(suffix: str) -> Change:
    def change(photos: Path) -> None:
        for file in sorted((photos / "train" / "cat").iterdir())[::2]:
            if suffix == "npy":
                np.save(file.with_suffix(".npy"), np.zeros((16, 16, 3), np.uint8))
                file.unlink()
            else:
                file.rename(file.with_suffix(f".{suffix}"))

    return change

"""Hostile and odd images: bombs, 50,000 files, archives whose paths lead outside, odd names, links and classes."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.reliability.attempt import Attempt
from tests.reliability.case import Case, Expected
from tests.reliability.files import FOLDER_OF_IMAGES, S
from tests.reliability.samples import Samples, copied

REFUSED, EITHER, ACCEPTED = Expected.REFUSED, Expected.EITHER, Expected.ACCEPTED
MANY = 50_000
Change = Callable[[Path], object]


def png(width: int, height: int, *, colour: int | None = None) -> bytes:
    """Return a PNG with a header of this size: a whole image of one colour, or one whose pixels are missing."""
    rows = b"" if colour is None else zlib.compress((b"\x00" + bytes([colour]) * width) * height)
    if colour is None:
        rows = zlib.compress(b"\x00" * 1000)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    body = b"".join(_chunk(name, content) for name, content in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def text_bomb() -> bytes:
    """Return a small PNG with a compressed text of 500 MB."""
    compressor = zlib.compressobj(9)
    text = b"".join(compressor.compress(bytes(1_000_000)) for _ in range(500)) + compressor.flush()
    whole = png(16, 16, colour=9)
    end = whole.index(b"IDAT") - 4
    return whole[:end] + _chunk(b"zTXt", b"Comment\x00\x00" + text) + whole[end:]


def gif(side: int) -> bytes:
    """Return a GIF whose header promises a square of this side."""
    return (
        b"GIF89a" + struct.pack("<HH", side, side) + b"\x00\x00\x00," + struct.pack("<HHHH", 0, 0, side, side) + b"\x00"
    )


def bmp(side: int) -> bytes:
    """Return a BMP whose header promises a square of this side."""
    return (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    )


BOMBS: dict[str, Callable[[], bytes]] = {
    "header.png": lambda: png(50_000, 50_000),
    "whole.png": lambda: png(20_000, 20_000, colour=7),
    "wide.png": lambda: png(200_000_000, 1, colour=7),
    "text.png": text_bomb,
    "header.gif": lambda: gif(65_535),
    "header.bmp": lambda: bmp(50_000),
    "largest.png": lambda: png(2**31 - 1, 2**31 - 1),
}


def cases(samples: Samples) -> Iterator[Case]:
    """Yield all cases of images."""
    for name, content in BOMBS.items():
        expected = EITHER if name == "text.png" else REFUSED
        yield _training(samples, "bomb", name, _file(f"train/cat/{name}", content), expected, names=(name,))
        skip = (*FOLDER_OF_IMAGES, "dataset.unreadable=skip")
        yield _training(samples, "bomb, skipped", name, _file(f"train/cat/{name}", content), ACCEPTED, words=skip)
        yield _predict(samples, "bomb, predict", name, content, expected)
    yield _training(samples, "many", f"{MANY} images", _many, ACCEPTED, timeout=600)
    yield from _large_files(samples)
    yield from _archives(samples)
    for name, change, expected, names in _folders():
        yield _training(samples, "folder", name, change, expected, names=names)
    for name in NAMES:
        shown = ascii(name)[1:-1][:40]
        yield _training(samples, "name of a class", shown, _renamed("train/cat", "val/cat", name=name), EITHER)
        yield _training(samples, "name of an image", shown, _renamed("train/cat/cat0.png", name=f"{name}.png"), EITHER)
        damaged = _both(_renamed("train/cat/cat0.png", name=f"{name}.png"), _damage(f"train/cat/{name}.png"))
        yield _training(samples, "name of a damaged image", shown, damaged, REFUSED)
        yield _predict(samples, "name, predict", f"{name}.png", lambda: png(16, 16, colour=3), EITHER)
        yield _predict(samples, "name of a damaged image, predict", f"{name}.png", lambda: b"none", REFUSED)


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


def _training(
    samples: Samples,
    kind: str,
    name: str,
    change: Change,
    expected: Expected,
    *,
    words: tuple[str, ...] = FOLDER_OF_IMAGES,
    names: tuple[str, ...] = (),
    timeout: float = 120,
) -> Case:
    def prepare(folder: Path) -> None:
        copied(samples.images, folder)
        change(folder / "photos")

    return Case("data", kind, name, Attempt(words, expected, prepare=prepare, names=names, timeout=timeout))


def _predict(samples: Samples, kind: str, name: str, content: Callable[[], bytes], expected: Expected) -> Case:
    def prepare(folder: Path) -> None:
        copied(samples.exported, folder)
        (folder / "images").mkdir()
        (folder / "images" / name).write_bytes(content())

    words = ("-m", "sqakd.predict", f"{S}/export-exact/model.onnx", "images")
    return Case("data", kind, ascii(name)[1:-1][:50], Attempt(words, expected, prepare=prepare))


def _file(place: str, content: Callable[[], bytes]) -> Change:
    return lambda photos: (photos / place).write_bytes(content())


def _damage(place: str) -> Change:
    return lambda photos: (photos / place).write_bytes(b"none")


def _both(*changes: Change) -> Change:
    def change(photos: Path) -> None:
        for one in changes:
            one(photos)

    return change


def _renamed(*places: str, name: str) -> Change:
    def change(photos: Path) -> None:
        for place in places:
            (photos / place).rename((photos / place).with_name(name))

    return change


def _many(photos: Path) -> None:
    """Write 50,000 images of 8x8 pixels in ten classes."""
    contents = []
    for colour in range(250):
        stream = io.BytesIO()
        Image.new("L", (8, 8), colour).save(stream, format="png")
        contents.append(stream.getvalue())
    for number in range(MANY):
        part = "val" if number % 10 == 0 else "train"
        file = photos / part / f"class{number // 10 % 10}" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(contents[number % len(contents)])


def _large_files(samples: Samples) -> Iterator[Case]:
    """Yield files that occupy no room on the disk but would fill the memory."""

    def sparse(file: Path) -> None:
        file.unlink(missing_ok=True)
        with file.open("wb") as stream:
            stream.truncate(200 * 2**30)

    def header(file: Path) -> None:
        file.write_bytes(struct.pack("<Q", 2**60) + b"{")

    words = ("train.py", "dataset=digits16", "model.net.blocks=1", "recipe.epochs=1")
    for name, suffix, damage in (
        ("200 GB", "pt", sparse),
        ("200 GB", "safetensors", sparse),
        ("header", "safetensors", header),
    ):
        file = f"large.{suffix}"
        attempt = Attempt(
            (*words, f"teacher.checkpoint={file}"),
            REFUSED,
            prepare=lambda folder, damage=damage, file=file: damage(folder / file),  # type: ignore[misc]
            names=(file,),
        )
        yield Case("data", "large file", f"{name}.{suffix}", attempt)
    for file in ("record.json", "config.yaml", "metrics.csv", "export-exact/model.onnx", "export-exact/record.json"):

        def prepare(folder: Path, file: str = file) -> None:
            copied(samples.exported, folder)
            sparse(folder / S / file)

        reads: tuple[str, ...] = ("-m", "sqakd.dashboard", "--offline")
        if file.endswith("onnx"):
            reads = ("-m", "sqakd.predict", f"{S}/{file}", "photo.png")
        elif file == "config.yaml":
            reads = ("export.py", f"run={S}", "benchmark.rounds=0")
        yield Case("data", "large file", file, Attempt(reads, EITHER, prepare=prepare, names=(Path(file).name,)))


def _archives(samples: Samples) -> Iterator[Case]:
    """Yield archives in a data set's place whose members lead outside."""
    for dataset, file in (("cifar10", "cifar-10-python.tar.gz"), ("cifar100", "cifar-100-python.tar.gz")):
        for name, member in _members().items():

            def prepare(folder: Path, file: str = file, member: tarfile.TarInfo = member) -> None:
                (folder / "data").mkdir()
                with tarfile.open(folder / "data" / file, "w:gz") as archive:
                    archive.addfile(member, io.BytesIO(bytes(member.size)))

            yield Case(
                "data", "archive", f"{dataset} {name}", Attempt(("train.py", f"dataset={dataset}"), REFUSED, prepare)
            )
    for name in ("../outside", "/outside", "tiny-imagenet-200/../../outside", "zip bomb"):

        def pack(folder: Path, name: str = name) -> None:
            (folder / "data").mkdir()
            with zipfile.ZipFile(folder / "data" / "tiny-imagenet-200.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(name, bytes(200_000_000) if name == "zip bomb" else b"x")

        yield Case(
            "data", "archive", f"tiny_imagenet {name}", Attempt(("train.py", "dataset=tiny_imagenet"), REFUSED, pack)
        )


def _members() -> dict[str, tarfile.TarInfo]:
    found = {
        name: tarfile.TarInfo(name) for name in ("../outside", "/tmp/outside-of-the-archive", "cifar/../../outside")
    }
    for name, kind in (
        ("link", tarfile.SYMTYPE),
        ("hard link", tarfile.LNKTYPE),
        ("device", tarfile.CHRTYPE),
        ("fifo", tarfile.FIFOTYPE),
    ):
        found[name] = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        found[name].type, found[name].linkname = kind, "/etc/passwd"
    return found


def _folders() -> Iterator[tuple[str, Change, Expected, tuple[str, ...]]]:
    """Yield (name, change of the folder photos/, ending, texts of a refusal)."""

    def remove(*places: str) -> Change:
        import shutil

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

"""Hostile and odd images: bombs, 50,000 files, archives whose paths lead outside, odd names, links and classes."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from tests.reliability.attempt import Attempt
from tests.reliability.case import Case, Expected
from tests.reliability.files import S
from tests.reliability.input_files import FOLDER_OF_IMAGES
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
        yield training(samples, "bomb", name, _file(f"train/cat/{name}", content), expected, names=(name,))
        skip = (*FOLDER_OF_IMAGES, "dataset.unreadable=skip")
        yield training(samples, "bomb, skipped", name, _file(f"train/cat/{name}", content), ACCEPTED, words=skip)
        yield predict(samples, "bomb, predict", name, content, expected)
    yield training(samples, "many", f"{MANY} images", _many, ACCEPTED, timeout=600)
    yield from _large_files(samples)
    yield from _archives(samples)


def training(
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


def predict(samples: Samples, kind: str, name: str, content: Callable[[], bytes], expected: Expected) -> Case:
    def prepare(folder: Path) -> None:
        copied(samples.exported, folder)
        (folder / "images").mkdir()
        (folder / "images" / name).write_bytes(content())

    words = ("-m", "sqakd.predict", f"{S}/export-exact/model.onnx", "images")
    return Case("data", kind, ascii(name)[1:-1][:50], Attempt(words, expected, prepare=prepare))


def _file(place: str, content: Callable[[], bytes]) -> Change:
    return lambda photos: (photos / place).write_bytes(content())


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
            prepare=_applied(damage, file),
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


def _applied(damage: Change, file: str) -> Change:
    return lambda folder: damage(folder / file)


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

"""Contract of image files: a data set and an exported model see the same pixels, whatever the file is."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from image_sets import load_folder, make_folder, refusal, save
from numpy.typing import NDArray
from PIL import Image, features

import sqakd.dataset.decoded
from sqakd import images
from sqakd.app.export import ROUNDING, _preparation, _validation_batches
from sqakd.dataset.transforms.augment import normalize
from sqakd.dataset.transforms.resize import ResizeCentreCrop
from sqakd.images import ImageError, Preparation, read_rgb

WIDTH, HEIGHT = 12, 8
ORIENTATION = 0x0112
LOSSLESS = (".png", ".tif", ".webp")
AVIF = (".avif",) if features.check("avif") else ()
LOSSY = (".jpg", ".jfif", *AVIF)
ORIENTED = (*LOSSLESS, *LOSSY)  # formats that store an orientation
# Changes the upright pixels into those that a camera stores with this EXIF orientation.
STORED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}


def upright(channels: int = 3) -> NDArray[np.uint8]:
    """Return smooth pixels [HEIGHT, WIDTH, channels] in which every corner has another colour."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [20 + 25 * rows, 230 - 18 * columns, 10 + 8 * rows + 12 * columns, 255 - 10 * rows - 8 * columns]
    return np.stack(planes[:channels], axis=2).astype(np.uint8)


def make(mode: str, orientation: int) -> tuple[Image.Image, NDArray[np.float64]]:
    """Return an image as a camera stores it, and the RGB pixels that everyone should see, [HEIGHT, WIDTH, 3]."""
    turn = STORED[orientation]
    rgb, grey = upright().astype(float), upright(1)[..., 0]
    three = np.repeat(grey[..., None], 3, axis=2).astype(float)
    if mode == "I;16":
        return Image.fromarray(np.ascontiguousarray(turn(grey)).astype(np.uint16) * 257), three
    if mode in ("RGBA", "LA"):
        pixels = upright(4) if mode == "RGBA" else upright(4)[..., [0, 3]]
        seen = (rgb if mode == "RGBA" else three) * pixels[..., -1:] / 255
        return Image.fromarray(np.ascontiguousarray(turn(pixels)), mode), seen
    if mode == "RGB":
        return Image.fromarray(np.ascontiguousarray(turn(upright()))), rgb
    stored = Image.fromarray(np.ascontiguousarray(turn(grey)))
    if mode == "1":
        return stored.point(lambda v: 255 * (v > 100), "1"), np.where(three > 100, 255.0, 0.0)
    if mode == "P":
        return stored.convert("P"), three
    assert mode == "L"
    return stored, three


def cases() -> list[tuple[str, str, int]]:
    """Return (suffix, mode, orientation) of all combinations that exist."""
    modes = {
        ".png": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
        ".tif": ("RGB", "RGBA", "L", "P", "1", "I;16"),
        ".webp": ("RGB", "RGBA"),
        ".jpg": ("RGB", "L"),
        ".jfif": ("RGB",),
        **dict.fromkeys(AVIF, ("RGB",)),
        ".bmp": ("RGB", "L", "P", "1"),
        ".gif": ("L", "P", "1"),
        ".ppm": ("RGB",),
        ".pgm": ("L", "I;16"),
    }
    return [
        (suffix, mode, orientation)
        for suffix, inside in modes.items()
        for mode in inside
        for orientation in (STORED if suffix in ORIENTED else (1,))
    ]


def name(suffix: str, mode: str, orientation: int) -> str:
    return f"{mode.replace(';', '')}-{orientation}{suffix}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one image file for each case."""
    place = tmp_path_factory.mktemp("contract") / "images"
    place.mkdir()
    for suffix, mode, orientation in cases():
        image, _ = make(mode, orientation)
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options: dict[str, Any] = {"exif": exif} if suffix in ORIENTED else {}
        if suffix == ".webp":
            options["lossless"] = options["exact"] = True
        if suffix in LOSSY:
            options |= {"quality": 100, "subsampling": "4:4:4"}
        image.save(place / name(suffix, mode, orientation), **options)
    return place


@pytest.mark.parametrize(("suffix", "mode", "orientation"), cases())
def test_image_is_read_upright_with_its_colours(folder: Path, suffix: str, mode: str, orientation: int) -> None:
    _, wanted = make(mode, orientation)
    seen = np.asarray(read_rgb(folder / name(suffix, mode, orientation))).astype(float)
    assert seen.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(seen - wanted).max() <= (8 if suffix in LOSSY else 1)


@pytest.mark.parametrize(("size", "resize"), [(8, None), (5, None), (32, None), (8, 8), (8, 13), (32, 40)])
def test_data_set_and_exported_model_see_the_same_pixels(folder: Path, size: int, resize: int | None) -> None:
    data = load_folder(folder, image_size=size, resize=resize)
    prepare = _preparation(data)
    assert data.train_files is not None
    assert data.val_files is not None
    pairs = [*zip(data.train_files, data.train_images, strict=True), *zip(data.val_files, data.val_images, strict=True)]
    assert {file.name for file, _ in pairs} == {name(*case) for case in cases()}
    for file, pixels in pairs:
        assert np.array_equal(prepare(file), pixels.numpy()), file.name


def test_resize_is_that_of_pretrained_networks(tmp_path: Path) -> None:
    """Shorter side to 256, centre crop of 224, as torchvision prepares images."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels).resize((600, 400), Image.Resampling.BICUBIC)
    for i in range(2):
        smooth.save(tmp_path / f"{i}.png")
    data = load_folder(tmp_path, image_size=224, resize=256)
    wanted = T.Compose([T.Resize(256), T.CenterCrop(224), T.PILToTensor()])(smooth)
    difference = (data.train_images[0].int() - wanted.int()).abs()
    assert int(difference.max()) <= 2  # both sides are scaled by the same factor here, and rounded alike
    without = load_folder(tmp_path, image_size=224).train_images[0].int()
    assert int((without - wanted.int()).abs().max()) > 20


@pytest.mark.parametrize(("stored", "size", "margin"), [(40, 24, 8), (32, 24, 8), (20, 24, 6), (24, 24, 8), (8, 24, 4)])
def test_margin_of_the_evaluation_is_prepared_alike(tmp_path: Path, stored: int, size: int, margin: int) -> None:
    """In the fourth case the images have the network's size already, so nothing is cropped."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(6):
        pixels = rng.integers(0, 256, (rng.integers(9, 70), rng.integers(9, 70), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    data = load_folder(tmp_path / "images", image_size=stored, evaluate=ResizeCentreCrop(size=size, margin=margin))
    largest = 0
    for batch in _validation_batches(data):  # refuses larger differences than ROUNDING
        own = data.evaluate(data.val_images).round().clamp(0, 255)  # type: ignore[misc]
        largest = max(largest, int((batch.pixels.float() - own).abs().max()))
    assert largest <= (0 if stored in (size, size + margin) else ROUNDING)


# The proof


def test_proof_starts_from_the_files(folder: Path) -> None:
    data = load_folder(folder, image_size=8, holdout=0.3, limit=17)
    assert data.val_files is not None
    batches = list(_validation_batches(data))
    pixels = torch.cat([batch.pixels for batch in batches])
    read = np.stack([_preparation(data)(file) for file in data.val_files])
    assert len(read) == 17
    assert np.array_equal(pixels.numpy(), read)
    assert torch.equal(pixels, data.val_images), "files follow their images into the hold-out"
    inputs = torch.cat([batch.inputs for batch in batches])
    assert np.array_equal(inputs.numpy(), images.normalize(read, data.mean, data.std))


def test_normalisation_without_torch_has_the_same_rounding() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 40), dtype=np.uint8)
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    wanted = normalize(torch.from_numpy(pixels), torch.tensor(mean), torch.tensor(std)).numpy()
    assert np.array_equal(images.normalize(pixels, mean, std), wanted)


def test_proof_refuses_a_file_that_differs_from_its_decoded_copy(tmp_path: Path) -> None:
    """Length and time of the last change are the same, so the cache cannot know."""
    for i in range(4):
        save(tmp_path / "images" / f"{i}.bmp", i)
    make_folder(tmp_path / "images").setup()
    file = load_folder(tmp_path / "images").val_files[0]  # type: ignore[index]
    facts = file.stat()
    save(file, 200)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    message = refusal(lambda: list(_validation_batches(load_folder(tmp_path / "images"))))
    assert str(file) in message
    assert "has other pixels than the data set" in message


def test_images_decoded_by_another_version_are_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        save(tmp_path / "images" / f"{i}.png", i)
    with monkeypatch.context() as patch:
        patch.setattr(sqakd.dataset.decoded, "VERSION", images.VERSION - 1)
        load_folder(tmp_path / "images")
    before = set((tmp_path / "cache").glob("*.uint8"))
    load_folder(tmp_path / "images")
    assert len(set((tmp_path / "cache").glob("*.uint8")) - before) == len(before) == 2


# Files that are no images


def png(width: int, height: int) -> bytes:
    """Return a small PNG file that claims to have this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [30_000, 100_000])
def test_decompression_bomb_is_refused_before_its_pixels_are_read(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png(side, side))
    with pytest.raises(ImageError, match="pixels"):
        read_rgb(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("ignore::UserWarning")  # pillow's notes about damaged tags
def test_damaged_file_raises_no_other_error_than_an_image_error(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for file in sorted(folder.iterdir())[::5]:
        whole = file.read_bytes()
        for _ in range(6):
            content = bytearray(whole[: rng.integers(0, len(whole))] if rng.random() < 0.5 else whole)
            for position in rng.integers(0, max(1, len(content)), 4) if content else ():
                content[position] ^= 1 << rng.integers(0, 8)
            (tmp_path / "damaged").write_bytes(content)
            with contextlib.suppress(ImageError):  # some damages leave an image; every other error is a fault
                read_rgb(tmp_path / "damaged")


def test_damaged_exif_block_does_not_hide_the_pixels(tmp_path: Path) -> None:
    image = Image.fromarray(upright())
    image.save(tmp_path / "a.png", exif=b"Exif\x00\x00XX\x00\x2a nonsense")
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "a.png")), upright())


def test_preparation_of_an_older_export_resizes_in_one_step(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 7, size=(30, 20))
    assert Preparation(size=(8, 8), stored=None, margin=2)(tmp_path / "a.png").shape == (3, 8, 8)

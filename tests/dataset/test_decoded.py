"""Decoded images: formats, sizes, unreadable files, and the cache."""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from image_sets import SIZE, load_folder, refusal, save, truncate, values
from numpy.typing import NDArray
from PIL import Image

from sqakd.dataset import imagefolder


def unfinished(cache: Path) -> list[str]:
    """Names of files in a cache that are neither decoded images nor locks."""
    return [file.name for file in cache.iterdir() if file.suffix not in (".uint8", ".json", ".lock")]


# formats and sizes


def read(file: Path, size: int = SIZE) -> NDArray[np.uint8]:
    """Return the pixels [size, size, 3] of a file."""
    pixels = imagefolder._read(file, size, 0)
    assert not isinstance(pixels, str), pixels
    assert pixels.shape == (3, size, size)
    assert pixels.dtype == np.uint8
    return pixels.transpose(1, 2, 0)


def ramp(channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, channels), dtype=np.uint8)


def test_colour_is_kept(tmp_path: Path) -> None:
    pixels = ramp(3)
    for name in ("a.png", "a.bmp", "a.tif", "a.ppm"):
        Image.fromarray(pixels).save(tmp_path / name)
        assert np.array_equal(read(tmp_path / name), pixels), name
    Image.fromarray(pixels).save(tmp_path / "A.WEBP", lossless=True)
    assert np.array_equal(read(tmp_path / "A.WEBP"), pixels)


def test_transparency_is_blended_with_black(tmp_path: Path) -> None:
    pixels = ramp(4)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "rgba.png")
    expected = pixels[..., :3].astype(float) * pixels[..., 3:] / 255
    assert np.abs(read(tmp_path / "rgba.png") - expected).max() <= 1

    Image.fromarray(pixels[..., :2].copy(), "LA").save(tmp_path / "la.png")
    expected = pixels[..., :1].astype(float) * pixels[..., 1:2] / 255
    assert np.abs(read(tmp_path / "la.png") - expected).max() <= 1


def test_grey_images_become_rgb(tmp_path: Path) -> None:
    pixels = ramp(1)[..., 0]
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    assert np.array_equal(read(tmp_path / "grey.png"), np.repeat(pixels[..., None], 3, 2))
    Image.fromarray(pixels > 127).save(tmp_path / "one_bit.png")
    assert np.array_equal(read(tmp_path / "one_bit.png")[..., 0], np.where(pixels > 127, 255, 0))


def test_palettes_become_rgb(tmp_path: Path) -> None:
    pixels = ramp(3)
    palette = Image.fromarray(pixels).quantize(64)
    for name in ("palette.png", "palette.gif"):
        palette.save(tmp_path / name)
        assert np.array_equal(read(tmp_path / name), np.asarray(palette.convert("RGB"))), name

    index = np.asarray(palette)
    palette.save(tmp_path / "transparent.png", transparency=int(index[0, 0]))
    expected = np.asarray(palette.convert("RGB")) * (index != index[0, 0])[..., None]
    assert np.array_equal(read(tmp_path / "transparent.png"), expected)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("RGB", (SIZE, SIZE), (200, 100, 50)).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(read(tmp_path / "cmyk.jpg").astype(int) - [200, 100, 50]).max() <= 3


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, name: str) -> None:
    deep = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    Image.fromarray(deep).save(tmp_path / name)
    pixels = read(tmp_path / name)
    assert np.abs(pixels[..., 0] - deep / 257).max() <= 1
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("shape", [(40, 16), (16, 40), (16, 16), (5, 4), (64, 9), (1, 30)])
def test_shorter_side_is_resized_and_the_centre_is_cropped(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Brightness grows from left to right and from top to bottom, so that it identifies each position."""
    height, width = shape
    side = min(shape)
    rows, columns = np.mgrid[:height, :width]
    slope = 200 / max(shape)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 127.5 + slope * (rows - (height - 1) / 2)
    image[..., 1] = 127.5 + slope * (columns - (width - 1) / 2)
    Image.fromarray(image).save(tmp_path / "a.png")

    pixels = read(tmp_path / "a.png").astype(float)

    place = (np.arange(SIZE) - (SIZE - 1) / 2) * side / SIZE  # from the centre, in pixels of the original
    inside = np.abs(place) <= (side - 1) / 2  # the border is interpolated from half a pixel only
    tolerance = slope + 2
    assert np.abs(pixels[inside, :, 0] - (127.5 + slope * place[inside])[:, None]).max(initial=0) < tolerance
    assert np.abs(pixels[:, inside, 1] - (127.5 + slope * place[inside])[None, :]).max(initial=0) < tolerance
    assert abs(pixels[..., 0].mean() - 127.5) < 2
    assert abs(pixels[..., 1].mean() - 127.5) < 2


def test_images_of_different_sizes_and_formats_make_one_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    save(folder / "train" / "a.png", 1, size=(30, 11), mode="RGBA")
    save(folder / "train" / "b.GIF", 2, size=(3, 3), mode="L")
    save(folder / "train" / "c.bmp", 3, size=(8, 200))
    save(folder / "val" / "d.JPG", 4, size=(9, 10), mode="CMYK")
    data = load_folder(folder)
    assert values(data.train_images) == [1, 2, 3]
    assert data.val_images.shape == (1, 3, SIZE, SIZE)


# unreadable files


def save_half(file: Path) -> None:
    save(file, 7, size=(64, 64))
    truncate(file)


def write_text(file: Path) -> None:
    file.write_text("this is not an image")


def write_nothing(file: Path) -> None:
    file.write_bytes(b"")


BREAK = pytest.mark.parametrize("damage", [save_half, write_text, write_nothing])


@BREAK
def test_unreadable_file_is_refused_and_named(flat: Path, damage: Callable[[Path], None]) -> None:
    damage(flat / "broken.jpg")
    for _ in range(2):
        message = refusal(lambda: load_folder(flat))
        assert str(flat / "broken.jpg") in message
        assert "dataset.unreadable=skip" in message
        assert unfinished(flat.parent / "cache") == []
    (flat / "broken.jpg").unlink()
    load_folder(flat)


@BREAK
def test_unreadable_file_is_skipped_and_named(
    labelled: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = labelled / "train" / "cat" / "00.jpg"  # the first image: the labels of all others move
    damage(broken)
    for _ in range(2):  # decoded, then from the cache
        data = load_folder(labelled, unreadable="skip")
        assert data.train_labels is not None
        assert values(data.train_images) == [0, 1, 2, 10, 11]
        assert data.train_labels.tolist() == [0, 0, 0, 1, 1]
    output = "".join(capsys.readouterr())
    assert "omitted 1 of 6 files" in output
    assert str(broken) in output
    assert "00.jpg" in refusal(lambda: load_folder(labelled, unreadable="refuse"))


def test_many_unreadable_files_are_counted(flat: Path) -> None:
    for i in range(10):
        (flat / f"{i}.png").write_text("")
    pattern = r"(\d+) of \1 files are not readable images: (.+, ){2}.+ and \d more"
    assert re.fullmatch(f"{pattern}; remove them, or use dataset.unreadable=skip", refusal(lambda: load_folder(flat)))
    assert re.fullmatch(pattern, refusal(lambda: load_folder(flat, unreadable="skip")))


# cache


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    original = imagefolder._read

    def noted(path: Path, size: int, margin: int) -> NDArray[np.uint8] | str:
        names.append(path.name)
        return original(path, size, margin)

    monkeypatch.setattr(imagefolder, "_read", noted)
    return names


def test_cache_is_used_again(labelled: Path, decoded: list[str]) -> None:
    first = load_folder(labelled)
    assert len(decoded) == 8
    second = load_folder(labelled)
    assert len(decoded) == 8
    assert torch.equal(first.train_images, second.train_images)
    assert torch.equal(first.val_images, second.val_images)
    assert unfinished(labelled.parent / "cache") == []


def test_changed_file_of_the_same_length_is_decoded_again(tmp_path: Path, decoded: list[str]) -> None:
    folder = tmp_path / "images"
    for i in range(4):
        save(folder / "train" / f"{i}.bmp", i)
    save(folder / "val" / "0.bmp", 0)
    before = load_folder(folder)
    length = (folder / "train" / "1.bmp").stat().st_size
    save(folder / "train" / "1.bmp", 200)
    assert (folder / "train" / "1.bmp").stat().st_size == length
    os.utime(folder / "train" / "1.bmp", ns=(1, 1))
    del decoded[:]
    assert values(load_folder(folder).train_images) == [0, 200, 2, 3]
    assert sorted(decoded) == [f"{i}.bmp" for i in range(4)], "only the changed part is decoded"
    assert values(before.train_images) == [0, 1, 2, 3], "a mapped file stays as it was"


@pytest.mark.parametrize("change", ["image_size", "added", "removed"])
def test_other_images_or_sizes_have_their_own_cache(flat: Path, decoded: list[str], change: str) -> None:
    load_folder(flat)
    load_folder(flat)
    assert len(decoded) == 10
    if change == "added":
        save(flat / "more.png", 100)
    elif change == "removed":
        (flat / "0.png").unlink()
    data = load_folder(flat, image_size=16 if change == "image_size" else SIZE)
    assert len(decoded) > 10
    expected = {"image_size": set(range(10)), "added": {*range(10), 100}, "removed": set(range(1, 10))}[change]
    assert set(values(data.train_images) + values(data.val_images)) == expected
    assert data.train_images.shape[2:] == ((16, 16) if change == "image_size" else (SIZE, SIZE))
    if change == "image_size":
        del decoded[:]
        load_folder(flat)
        assert not decoded, "both sizes are kept"


@pytest.mark.parametrize("suffix", ["uint8", "json"])
@pytest.mark.parametrize("damage", ["empty", "deleted", "5", '{"a": 1}', "[100, -1]", "[true]", "[[1]]", "[" * 10_000])
def test_damaged_cache_is_written_again(flat: Path, decoded: list[str], suffix: str, damage: str) -> None:
    expected = values(load_folder(flat).train_images)
    for file in (flat.parent / "cache").glob(f"*.{suffix}"):
        if damage == "deleted":
            file.unlink()
        else:
            file.write_text("" if damage == "empty" else damage)
    assert values(load_folder(flat).train_images) == expected
    assert len(decoded) == 20


def test_what_a_killed_process_had_decoded_is_deleted(flat: Path) -> None:
    load_folder(flat)
    cache = flat.parent / "cache"
    for file in cache.iterdir():
        file.unlink()
    (cache / ".0123456789abcdef01234567.uint8.0123abcd.part").write_bytes(b"half")
    load_folder(flat)
    assert not list(cache.glob("*.part"))


def test_writing_to_a_batch_does_not_change_the_cache(flat: Path) -> None:
    data = load_folder(flat)
    expected = data.train_images.clone()
    data.train_images.zero_()
    assert torch.equal(load_folder(flat).train_images, expected)


def test_concurrent_threads_decode_once(flat: Path, decoded: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: values(load_folder(flat).train_images), range(4)))
    assert len(decoded) == 10
    assert all(result == results[0] for result in results)


def load_in_process(folder: Path) -> tuple[int, list[int]]:
    """Return how many files this process decoded, and its training images."""
    calls = []
    original = imagefolder._read

    def slowly(path: Path, size: int, margin: int) -> NDArray[np.uint8] | str:
        calls.append(path)
        time.sleep(0.05)  # time for the other process to arrive
        return original(path, size, margin)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagefolder, "_read", slowly)
        images = values(load_folder(folder).train_images)
    return len(calls), images


def test_concurrent_processes_decode_once(flat: Path) -> None:
    context = multiprocessing.get_context("fork")  # spawned, each would import Lightning for seconds
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        results = list(pool.map(load_in_process, [flat, flat]))
    assert sum(decoded for decoded, _ in results) == 10
    assert results[0][1] == results[1][1]
    assert sorted(results[0][1] + values(load_folder(flat).val_images)) == list(range(10))


def test_cache_that_cannot_be_written_is_refused(flat: Path) -> None:
    cache = flat.parent / "a_file"
    cache.write_text("")
    message = refusal(lambda: load_folder(flat, cache=str(cache)))
    assert f"cannot write decoded images to {cache}" in message
    assert "dataset.cache=FOLDER" in message

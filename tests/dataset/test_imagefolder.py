"""The user's own images: layouts, formats, sizes, what is refused, and the cache."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sqakd.dataset import imagefolder
from sqakd.dataset.errors import DataError
from sqakd.dataset.imagefolder import ImageFolder

SIZE = 8


def make(folder: Path, **changes: Any) -> ImageFolder:
    arguments: dict[str, Any] = {
        "folder": str(folder),
        "image_size": SIZE,
        "cache": str(folder.parent / "cache"),
        "val_fraction": 0.2,
        "unreadable": "refuse",
        "batch_size": 4,
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
    return ImageFolder(**arguments | changes)


def load(folder: Path, **changes: Any) -> ImageFolder:
    data = make(folder, **changes)
    data.setup()
    return data


def save(file: Path, value: int, *, size: tuple[int, int] = (SIZE, SIZE), mode: str = "RGB") -> None:
    """An image of one colour, so that its place in the data set is seen in its pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).convert(mode).save(file)


def values(images: Tensor) -> list[int]:
    """The one value of each image; fails if there is more than one."""
    flat = images.flatten(1)
    assert (flat == flat[:, :1]).all()
    return flat[:, 0].tolist()


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for i, (part, name, images) in enumerate(
        [("train", "cat", 3), ("train", "dog", 2), ("val", "cat", 1), ("val", "dog", 2)]
    ):
        for j in range(images):
            save(folder / part / name / f"{j}.png", 10 * i + j)
    return folder


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for i in range(10):
        save(folder / f"{i}.png", i)
    return folder


# Layouts ---------------------------------------------------------------------------------------------------------


def test_class_folders_are_labels(labelled: Path) -> None:
    (labelled / "train" / "cat" / "notes.txt").write_text("no image by its name: not looked at")
    data = load(labelled)
    assert data.labelled
    assert data.class_names == ["cat", "dog"]
    assert data.num_classes == 2
    assert data.train_labels is not None
    assert data.val_labels is not None
    assert data.train_images.dtype == torch.uint8
    assert data.train_images.shape == (5, 3, SIZE, SIZE)
    assert values(data.train_images) == [0, 1, 2, 10, 11]
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1]
    assert values(data.val_images) == [20, 30, 31]
    assert data.val_labels.tolist() == [0, 1, 1]
    assert data.train_labels.dtype == torch.int64

    batch = next(iter(data.train_dataloader()))
    assert batch.label is not None
    assert batch.label.tolist() == data.train_labels[batch.index].tolist()


def test_class_folders_without_validation(labelled: Path) -> None:
    for file in sorted((labelled / "val").rglob("*.png")):
        file.unlink()
    data = load(labelled)
    assert data.train_labels is not None
    assert data.val_labels is not None
    assert sorted(values(data.train_images) + values(data.val_images)) == [0, 1, 2, 10, 11]
    for images, labels in ((data.train_images, data.train_labels), (data.val_images, data.val_labels)):
        assert labels.tolist() == [value // 10 for value in values(images)]
    assert len(data.val_labels) >= 1


def test_flat_folder_is_unlabelled_with_a_fixed_share_held_out(flat: Path) -> None:
    data = load(flat)
    assert not data.labelled
    assert data.num_classes is None
    assert data.train_labels is data.val_labels is None
    assert 1 <= len(data.val_images) < len(data.train_images)
    assert sorted(values(data.train_images) + values(data.val_images)) == list(range(10))
    assert values(load(flat, seed=1).val_images) == values(data.val_images)
    assert all(batch.label is None for batch in data.train_dataloader())


def test_held_out_share_and_adding_files_moves_no_other(tmp_path: Path) -> None:
    data = make(tmp_path, val_fraction=0.2)
    files = [tmp_path / f"{i:04d}.png" for i in range(2000)]
    train, val = data._hold_out(files[::2])
    assert sorted(train + val) == files[::2]
    assert abs(len(val) - 200) < 5 * (1000 * 0.2 * 0.8) ** 0.5
    more_train, more_val = data._hold_out(files)
    assert set(train) < set(more_train)
    assert set(val) < set(more_val)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_neither_part_is_empty(tmp_path: Path, fraction: float) -> None:
    train, val = make(tmp_path, val_fraction=fraction)._hold_out([tmp_path / "a.png", tmp_path / "b.png"])
    assert len(train) == len(val) == 1


def test_flat_training_and_validation_folders(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for i in range(4):
        save(folder / "train" / f"{i}.png", i)
    for i in range(3):
        save(folder / "val" / f"{i}.png", 10 + i)
    data = load(folder)
    assert not data.labelled
    assert values(data.train_images) == [0, 1, 2, 3]
    assert values(data.val_images) == [10, 11, 12]


# Formats and sizes -----------------------------------------------------------------------------------------------


def read(file: Path, size: int = SIZE) -> NDArray[np.uint8]:
    """Pixels [size, size, 3]."""
    pixels = imagefolder._read(file, size)
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


def test_transparency_lies_over_black(tmp_path: Path) -> None:
    pixels = ramp(4)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "rgba.png")
    expected = pixels[..., :3].astype(float) * pixels[..., 3:] / 255
    assert np.abs(read(tmp_path / "rgba.png") - expected).max() <= 1

    Image.fromarray(pixels[..., :2].copy(), "LA").save(tmp_path / "la.png")
    expected = pixels[..., :1].astype(float) * pixels[..., 1:2] / 255
    assert np.abs(read(tmp_path / "la.png") - expected).max() <= 1


def test_grey(tmp_path: Path) -> None:
    pixels = ramp(1)[..., 0]
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    assert np.array_equal(read(tmp_path / "grey.png"), np.repeat(pixels[..., None], 3, 2))
    Image.fromarray(pixels > 127).save(tmp_path / "one_bit.png")
    assert np.array_equal(read(tmp_path / "one_bit.png")[..., 0], np.where(pixels > 127, 255, 0))


def test_palette(tmp_path: Path) -> None:
    pixels = ramp(3)
    palette = Image.fromarray(pixels).quantize(64)
    for name in ("palette.png", "palette.gif"):
        palette.save(tmp_path / name)
        assert np.array_equal(read(tmp_path / name), np.asarray(palette.convert("RGB"))), name

    index = np.asarray(palette)
    palette.save(tmp_path / "transparent.png", transparency=int(index[0, 0]))
    expected = np.asarray(palette.convert("RGB")) * (index != index[0, 0])[..., None]
    assert np.array_equal(read(tmp_path / "transparent.png"), expected)


def test_cmyk(tmp_path: Path) -> None:
    Image.new("RGB", (SIZE, SIZE), (200, 100, 50)).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(read(tmp_path / "cmyk.jpg").astype(int) - [200, 100, 50]).max() <= 3


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path, name: str) -> None:
    deep = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    Image.fromarray(deep).save(tmp_path / name)
    pixels = read(tmp_path / name)
    assert np.abs(pixels[..., 0] - deep / 257).max() <= 1
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("shape", [(40, 16), (16, 40), (16, 16), (5, 4), (64, 9), (1, 30)])
def test_shorter_side_fits_and_the_centre_is_cut_out(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Left to right and top to bottom the image gets lighter; in the middle it is always medium."""
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


def test_images_of_different_sizes_and_formats_together(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    save(folder / "train" / "a.png", 1, size=(30, 11), mode="RGBA")
    save(folder / "train" / "b.GIF", 2, size=(3, 3), mode="L")
    save(folder / "train" / "c.bmp", 3, size=(8, 200))
    save(folder / "val" / "d.JPG", 4, size=(9, 10), mode="CMYK")
    data = load(folder)
    assert values(data.train_images) == [1, 2, 3]
    assert data.val_images.shape == (1, 3, SIZE, SIZE)


# What is refused -------------------------------------------------------------------------------------------------


def truncate(file: Path) -> None:
    save(file, 7, size=(64, 64))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def write_text(file: Path) -> None:
    file.write_text("this is no image")


def write_nothing(file: Path) -> None:
    file.write_bytes(b"")


BREAK = pytest.mark.parametrize("damage", [truncate, write_text, write_nothing])


@BREAK
def test_unreadable_file_is_named(flat: Path, damage: Callable[[Path], None]) -> None:
    damage(flat / "broken.jpg")
    with pytest.raises(DataError) as error:
        load(flat)
    assert str(flat / "broken.jpg") in str(error.value)
    assert "dataset.unreadable=skip" in str(error.value)
    assert not list((flat.parent / "cache").glob("*.part*")), "nothing half written stays"
    with pytest.raises(DataError):
        load(flat)
    (flat / "broken.jpg").unlink()
    load(flat)


@BREAK
def test_unreadable_file_is_skipped_and_named(
    labelled: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = labelled / "train" / "cat" / "00.jpg"  # the first of the first class: all others move up
    damage(broken)
    for _ in range(2):  # decoded, then from the cache
        data = load(labelled, unreadable="skip")
        assert data.train_labels is not None
        assert values(data.train_images) == [0, 1, 2, 10, 11]
        assert data.train_labels.tolist() == [0, 0, 0, 1, 1]
    output = "".join(capsys.readouterr())
    assert "left out 1 of 6 files" in output
    assert str(broken) in output
    with pytest.raises(DataError, match=r"00\.jpg"):
        load(labelled, unreadable="refuse")


def test_many_unreadable_files_are_counted(flat: Path) -> None:
    for i in range(10):
        (flat / f"{i}.png").write_text("")
    with pytest.raises(DataError, match=r"(\d+) of \1 files .* and \d more; remove them, or type"):
        load(flat)
    with pytest.raises(DataError, match=r"(\d+) of \1 files .* and \d more; remove them$"):
        load(flat, unreadable="skip")


def test_class_that_only_validation_has(labelled: Path) -> None:
    save(labelled / "val" / "horse" / "0.png", 0)
    with pytest.raises(DataError, match=r"horse.*cat, dog"):
        load(labelled)


def test_class_folder_without_images(labelled: Path) -> None:
    (labelled / "train" / "horse").mkdir()
    with pytest.raises(DataError, match=r"without images.*horse"):
        load(labelled)


@pytest.mark.parametrize("part", ["train", "val"])
def test_image_beside_the_class_folders(labelled: Path, part: str) -> None:
    save(labelled / part / "loose.png", 0)
    with pytest.raises(DataError, match=r"loose\.png lies beside"):
        load(labelled)


@pytest.mark.parametrize("inside", ["nothing", "one image", "only val", "a class folder"])
def test_folder_with_too_few_images(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    files = {"nothing": [], "one image": ["0.png"], "only val": ["val/0.png"], "a class folder": ["cat/0.png"]}
    for name in files[inside]:
        save(folder / name, 0)
    with pytest.raises(DataError) as error:
        load(folder)
    assert str(folder) in str(error.value)
    assert "train/CLASS/IMAGE" in str(error.value)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load(tmp_path / "images")
    assert f"dataset.folder={tmp_path / 'images'}" in str(error.value)
    assert "train/CLASS/IMAGE" in str(error.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": 0}, {"image_size": 2.5}, {"val_fraction": 0.0}, {"val_fraction": 1}, {"unreadable": "ignore"}],
)
def test_wrong_options_are_refused_at_construction(flat: Path, wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(DataError, match=f"dataset.{name}='?{value}'?: expected"):
        make(flat, **wrong)


def test_cache_that_cannot_be_written(flat: Path) -> None:
    cache = flat.parent / "a_file"
    cache.write_text("")
    with pytest.raises(DataError, match=r"dataset\.cache=.*a_file"):
        load(flat, cache=str(cache))


# Cache -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files decoded so far."""
    names: list[str] = []
    original = imagefolder._read

    def noted(path: Path, size: int) -> NDArray[np.uint8] | str:
        names.append(path.name)
        return original(path, size)

    monkeypatch.setattr(imagefolder, "_read", noted)
    return names


def test_cache_is_used_again(labelled: Path, decoded: list[str]) -> None:
    first = load(labelled)
    assert len(decoded) == 8
    second = load(labelled)
    assert len(decoded) == 8
    assert torch.equal(first.train_images, second.train_images)
    assert torch.equal(first.val_images, second.val_images)
    assert not list((labelled.parent / "cache").glob("*.part*"))


def test_changed_file_of_the_same_length_is_decoded_anew(tmp_path: Path, decoded: list[str]) -> None:
    folder = tmp_path / "images"
    for i in range(4):
        save(folder / "train" / f"{i}.bmp", i)
    save(folder / "val" / "0.bmp", 0)
    before = load(folder)
    length = (folder / "train" / "1.bmp").stat().st_size
    save(folder / "train" / "1.bmp", 200)
    assert (folder / "train" / "1.bmp").stat().st_size == length
    os.utime(folder / "train" / "1.bmp", ns=(1, 1))
    del decoded[:]
    assert values(load(folder).train_images) == [0, 200, 2, 3]
    assert sorted(decoded) == [f"{i}.bmp" for i in range(4)], "of the changed part only"
    assert values(before.train_images) == [0, 1, 2, 3], "what is mapped already stays as it was"


@pytest.mark.parametrize("change", ["image_size", "added", "removed"])
def test_other_images_or_sizes_have_their_own_cache(flat: Path, decoded: list[str], change: str) -> None:
    load(flat)
    load(flat)
    assert len(decoded) == 10
    if change == "added":
        save(flat / "more.png", 100)
    elif change == "removed":
        (flat / "0.png").unlink()
    data = load(flat, image_size=16 if change == "image_size" else SIZE)
    assert len(decoded) > 10
    expected = {"image_size": set(range(10)), "added": {*range(10), 100}, "removed": set(range(1, 10))}[change]
    assert set(values(data.train_images) + values(data.val_images)) == expected
    assert data.train_images.shape[2:] == ((16, 16) if change == "image_size" else (SIZE, SIZE))
    if change == "image_size":
        del decoded[:]
        load(flat)
        assert not decoded, "both sizes are kept"


@pytest.mark.parametrize("suffix", ["uint8", "json"])
@pytest.mark.parametrize("how", ["empty", "gone"])
def test_damaged_cache_is_written_anew(flat: Path, decoded: list[str], suffix: str, how: str) -> None:
    expected = values(load(flat).train_images)
    for file in (flat.parent / "cache").glob(f"*.{suffix}"):
        if how == "gone":
            file.unlink()
        else:
            file.write_bytes(b"")
    assert values(load(flat).train_images) == expected
    assert len(decoded) == 20


def test_writing_to_a_batch_does_not_change_the_cache(flat: Path) -> None:
    data = load(flat)
    expected = data.train_images.clone()
    data.train_images.zero_()
    assert torch.equal(load(flat).train_images, expected)


def test_threads_at_once_decode_once(flat: Path, decoded: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: values(load(flat).train_images), range(4)))
    assert len(decoded) == 10
    assert all(result == results[0] for result in results)


def load_in_process(folder: Path) -> tuple[int, list[int]]:
    """How many files this process decoded, and its training images."""
    calls = []
    original = imagefolder._read

    def slowly(path: Path, size: int) -> NDArray[np.uint8] | str:
        calls.append(path)
        time.sleep(0.05)  # time for the other process to arrive
        return original(path, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagefolder, "_read", slowly)
        images = values(load(folder).train_images)
    return len(calls), images


def test_processes_at_once_decode_once(flat: Path) -> None:
    context = multiprocessing.get_context("fork")  # spawned, each would import Lightning for seconds
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        results = list(pool.map(load_in_process, [flat, flat]))
    assert sum(decoded for decoded, _ in results) == 10
    assert results[0][1] == results[1][1]
    assert sorted(results[0][1] + values(load(flat).val_images)) == list(range(10))

"""The line about the images at the start of a training, and checks of statistics and classes."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from image_sets import COMMON, load_folder, make_folder, refusal, save
from tiny_imagenet_files import Tiny

from sqakd.dataset.checks import check_classes, check_labels, check_mean, check_std
from sqakd.dataset.digits import Digits
from sqakd.dataset.transforms.augment import CropFlip
from sqakd.dataset.transforms.colour import ColourJitter
from sqakd.dataset.transforms.resize import ResizeCentreCrop, ResizedCropFlip
from sqakd.errors import SqakdError


def test_labelled_images(labelled: Path) -> None:
    assert str(load_folder(labelled).summary()) == (
        "5 training and 3 validation images,"
        " 2 classes with at least 2 training (dog) and 1 validation (cat) images each"
    )


def test_unlabelled_images_that_are_held_out(flat: Path) -> None:
    (flat / "notes.txt").touch()
    assert str(load_folder(flat).summary()) == (
        "8 training and 2 validation images (held out by file name), no labels;"
        " 1 left out: 1 not an image format (.txt)"
    )


def test_unreadable_files_that_are_skipped(flat: Path) -> None:
    (flat / "10.png").write_bytes(b"no image")
    for _ in range(2):  # decoded, then from the cache
        summary = str(load_folder(flat, unreadable="skip").summary())
        assert summary.endswith("no labels; 1 left out: 1 not a readable image (10.png)")


def test_a_class_without_validation_images_is_named(labelled: Path) -> None:
    (labelled / "val" / "cat" / "0.png").unlink()
    assert "2 training (dog) and 0 validation (cat) images each" in str(load_folder(labelled).summary())


def test_digits_that_are_limited_and_held_out() -> None:
    data = Digits(**COMMON | {"image_size": 8, "holdout": 0.2, "limit": 100})
    data.setup()
    text = str(data.summary())
    assert text.startswith("100 training and 100 validation images (held out, because holdout=0.2), 10 classes with")
    assert text.endswith("images each; limited to 100")


def test_tiny_imagenet_reports_what_it_does_not_use(tiny: Tiny) -> None:
    names = ["README", "test/images/test_0.JPEG", "val/images/._val_0.JPEG", "train/n01443537/images/x.png"]
    names += ["train/.ipynb_checkpoints/images/x.JPEG"]
    tiny.files |= dict.fromkeys(names, b"")
    tiny.pack()
    packed = str(tiny.load().summary())
    tiny.unpack()
    (tiny.folder / "train" / "lost.JPEG").symlink_to(tiny.folder / "absent")
    (tiny.folder / "train" / "up").symlink_to(tiny.folder)
    unpacked = str(tiny.load().summary())
    assert packed.startswith("33 training and 13 validation images, 3 classes with at least 11 training and ")
    for text in (packed, unpacked):
        assert "2 hidden or made by a tool" in text
        assert "1 outside train/ and val/ (test)" in text
        assert "1 not an image format (no suffix)" in text
        assert "1 not at train/WNID/images/*.JPEG or val/images/*.JPEG (x.png)" in text
    assert "1 broken link (lost.JPEG)" in unpacked
    assert "1 link to one of its own parent folders (up)" in unpacked


def test_skipping_unreadable_files_empties_no_class_of_tiny_imagenet(tiny: Tiny) -> None:
    for name in tiny.files:
        if name.startswith("train/n01443537/images/"):
            tiny.files[name] = b"no image"
    tiny.pack()
    assert "no image of the class(es) n01443537 can be read: train/" in refusal(lambda: tiny.load(unreadable="skip"))


# arguments


@pytest.mark.parametrize("wrong", [[0.5, 0.5], [0.5] * 4, [], 0.5, "0.5", None, [True, 0.5, 0.5], ["a", "b", "c"]])
def test_statistics_have_three_numbers(wrong: Any) -> None:
    for check in (check_mean, check_std):
        assert "expected 3 numbers from" in refusal(partial(check, wrong))


@pytest.mark.parametrize("value", [123.675, -0.1, math.nan, math.inf])
def test_statistics_on_another_scale_are_refused(value: float) -> None:
    for name, check in (("mean", check_mean), ("std", check_std)):
        message = refusal(partial(check, [0.5, value, 0.5]))
        assert message.startswith(f"{name}=[0.5, {value}, 0.5]: expected 3 numbers from")
        assert "for pixels scaled to 0 .. 1; divide values on the scale 0 .. 255 by 255" in message


def test_a_zero_is_a_mean_but_no_standard_deviation() -> None:
    check_mean([0, 0, 0])
    check_std([1 / 255] * 3)
    check_std([1, 1, 1])
    assert "std=[0, 0, 0]: expected 3 numbers from 1e-06 to 1" in refusal(lambda: check_std([0, 0, 0]))
    refusal(lambda: check_std([1e-50] * 3))


@pytest.mark.parametrize(
    "change",
    [{"mean": [125] * 3}, {"std": [0] * 3}, {"batch_size": 0}, {"eval_batch_size": 2.5}, {"seed": -1}],
)
def test_a_data_set_refuses_them_in_its_constructor(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(SqakdError, match=f"^{name}=.*: expected"):
        Digits(**COMMON | {"image_size": 8} | change)


def test_one_class_is_refused() -> None:
    check_classes(["cat", "dog"])
    assert "all images are of one class (cat); expected at least two" in refusal(lambda: check_classes(["cat"]))


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0]])
def test_labels_without_a_class_are_refused(labels: list[int]) -> None:
    check_labels(torch.tensor([0, 1]), ["cat", "dog"])
    message = refusal(lambda: check_labels(torch.tensor(labels), ["cat", "dog"]))
    assert message == f"labels from {min(labels)} to {max(labels)} for 2 classes; expected 0 to 1"


def test_sizes_and_strengths_in_another_unit_are_refused(flat: Path) -> None:
    crop: dict[str, Any] = {"area": [0.08, 1.0], "ratio": [0.75, 1.3], "flip": True}
    for action, message in [
        (lambda: make_folder(flat, image_size=100_000), "image_size=100000: expected at most 13377 pixels"),
        (lambda: Digits(**COMMON | {"image_size": 100_000}), "image_size=100000: expected at most 13377 pixels"),
        (lambda: ResizedCropFlip(size=100_000, **crop), "size=100000: expected at most 13377 pixels"),
        (lambda: ResizeCentreCrop(size=224, margin=100_000), "margin=100000: expected at most 13377 pixels"),
        (
            lambda: ColourJitter(brightness=20, contrast=0.2, saturation=0.2),
            "brightness=20: expected at most 10; 0.2 stands for 20 percent",
        ),
    ]:
        assert refusal(action) == message
    for area, ratio in [([8.0, 100.0], [0.75, 1.3]), ([0.08, 1.0], [0.75, math.inf]), ([0.08, math.nan], [0.75, 1.3])]:
        with pytest.raises(SqakdError, match=r"=\[.*\]: expected two "):
            ResizedCropFlip(size=8, area=area, ratio=ratio, flip=True)


def test_padding_as_large_as_the_images_is_refused(flat: Path) -> None:
    load_folder(flat, augment=CropFlip(padding=7, flip=False))
    with pytest.raises(SqakdError, match="images of 8x8 pixels are padded by 8 before the random crop; expected less"):
        load_folder(flat, augment=CropFlip(padding=8, flip=False))


def test_labels_of_unused_folders_do_not_count(tmp_path: Path) -> None:
    """Images directly in train/ have no labels, even if the validation images have some."""
    save(tmp_path / "images" / "train" / "0.png", 0)
    save(tmp_path / "images" / "train" / "1.png", 1)
    save(tmp_path / "images" / "val" / "cat" / "0.png", 2)
    assert str(load_folder(tmp_path / "images").summary()) == "2 training and 1 validation images, no labels"

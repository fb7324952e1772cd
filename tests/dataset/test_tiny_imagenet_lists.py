"""The lists of Tiny-ImageNet: missing, wrong, or different from the images that exist."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from image_sets import refusal
from tiny_imagenet_files import Tiny, jpeg


@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
def test_missing_list_is_refused_and_named(tiny: Tiny, both: Callable[[], Tiny], name: str) -> None:
    del tiny.files[name]
    message = refusal(both().load)
    assert f"{name} is missing" in message
    assert str(tiny.root) in message
    assert "train/WNID/images/*.JPEG" in message


def test_classes_without_a_name_are_refused(tiny: Tiny, both: Callable[[], Tiny]) -> None:
    tiny.files["words.txt"] = b"n01443537\tgoldfish\nn02124075\n"
    assert "words.txt has no names for n02124075, n04067472" in refusal(both().load)


@pytest.mark.parametrize(("content", "problem"), [(b"\n", "is empty"), (b"n1\nn2\nn1\n", "lists n1 more than once")])
def test_wrong_list_of_classes_is_refused(tiny: Tiny, both: Callable[[], Tiny], content: bytes, problem: str) -> None:
    tiny.files["wnids.txt"] = content
    assert f"wnids.txt {problem}" in refusal(both().load)


def test_listed_class_without_folder_is_refused(tiny: Tiny, both: Callable[[], Tiny]) -> None:
    tiny.files["wnids.txt"] += b"n09999999\n"
    tiny.files["words.txt"] += b"n09999999\tnothing\n"
    assert "train has no images of n09999999" in refusal(both().load)


def test_class_folder_that_is_not_listed_is_refused(tiny: Tiny, both: Callable[[], Tiny]) -> None:
    tiny.files["train/n09999999/images/n09999999_0.JPEG"] = jpeg(0)
    message = refusal(both().load)
    assert "n09999999" in message
    assert "wnids.txt does not list" in message
    assert "add the classes to wnids.txt, or remove the folders" in message


def test_class_folder_without_images_is_refused(tiny: Tiny, both: Callable[[], Tiny]) -> None:
    for name in tiny.names("train/n04067472"):
        del tiny.files[name]
    message = refusal(both().load)
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
def test_wrong_annotations_are_refused(
    tiny: Tiny, both: Callable[[], Tiny], old: bytes, new: bytes, message: str
) -> None:
    tiny.val["val_5.JPEG"] = "n02124075"
    tiny.annotate()
    name = "val/val_annotations.txt"
    assert old in tiny.files[name]
    tiny.files[name] = tiny.files[name].replace(old, new)
    assert re.search(message, refusal(both().load))

"""Data sets that several tests read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from image_sets import save
from tiny_imagenet_files import Tiny, build


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Class folders with 3 + 2 training images and 1 + 2 validation images."""
    folder = tmp_path / "images"
    for i, (part, name, images) in enumerate(
        [("train", "cat", 3), ("train", "dog", 2), ("val", "cat", 1), ("val", "dog", 2)]
    ):
        for j in range(images):
            save(folder / part / name / f"{j}.png", 10 * i + j)
    return folder


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Ten images in one folder, without labels."""
    folder = tmp_path / "images"
    for i in range(10):
        save(folder / f"{i}.png", i)
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """A small Tiny-ImageNet as an archive."""
    return build(tmp_path / "data")


@pytest.fixture(params=["archive", "folder"])
def both(tiny: Tiny, request: pytest.FixtureRequest) -> Callable[[], Tiny]:
    """A function that writes changed files of `tiny` as an archive or as a folder."""

    def apply() -> Tiny:
        tiny.pack()
        if request.param == "folder":
            tiny.unpack()
        return tiny

    return apply

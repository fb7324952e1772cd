"""The listing of image files: each entry of a folder is an image or is left out for a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from image_sets import save
from PIL import Image

from sqakd.image_files import (
    BROKEN,
    HIDDEN,
    LOOP,
    NO_FORMAT,
    SPECIAL,
    UNSUPPORTED,
    left_out_text,
    list_images,
    reason_against,
)


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_every_entry_is_an_image_or_left_out(tmp_path: Path) -> None:
    files = ["a.jpg", "b.JFIF", "c/d.png", "c/e.txt", "f", "g.heic.txt", ".h.png", "._a.jpg", "Thumbs.db", "i.cr2"]
    files += [".git/j.png", "__MACOSX/k.png", "@eaDir/l.jpg", ".ipynb_checkpoints/m.png"]
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe.png")
    found = list_images(tmp_path)
    assert names(found.images) == ["a.jpg", "b.JFIF", "d.png"]
    assert found.folders == {"c"}
    assert {reason: set(names(paths)) for reason, paths in found.left_out.items()} == {
        NO_FORMAT: {"e.txt", "f", "g.heic.txt"},
        HIDDEN: {".h.png", "._a.jpg", "Thumbs.db", ".git", "__MACOSX", "@eaDir", ".ipynb_checkpoints"},
        UNSUPPORTED: {"i.cr2"},
        SPECIAL: {"pipe.png"},
    }


def test_a_folder_is_listed_without_the_folders_inside(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 0)
    save(tmp_path / "c" / "b.png", 0)
    found = list_images(tmp_path, deep=False)
    assert (names(found.images), found.folders, found.left_out) == (["a.png"], {"c"}, {})


def test_links_to_files_and_to_folders_are_followed(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "cat" / "a.png", 0)
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (folder / "b.png").symlink_to(tmp_path / "elsewhere" / "cat" / "a.png")
    (folder / "lost.png").symlink_to(tmp_path / "absent.png")
    (folder / "itself").symlink_to(folder / "itself")
    found = list_images(folder)
    assert found.images == [folder / "b.png", folder / "cat" / "a.png"]
    assert found.folders == {"cat"}
    assert {reason: names(paths) for reason, paths in found.left_out.items()} == {BROKEN: ["itself", "lost.png"]}


def test_size_and_time_of_each_image_are_listed(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", 0)
    save(tmp_path / "b.bmp", 0)
    (tmp_path / "images" / "b.bmp").symlink_to(tmp_path / "b.bmp")
    (tmp_path / "images" / "notes.txt").touch()
    os.utime(tmp_path / "b.bmp", ns=(1, 3))
    found = list_images(tmp_path / "images")
    assert list(found.facts) == found.images
    assert found.facts[tmp_path / "images" / "b.bmp"] == ((tmp_path / "b.bmp").stat().st_size, 3)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    save(tmp_path / "images" / "cat" / "a.png", 0)
    (tmp_path / "images" / "cat" / "up").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "same").symlink_to(tmp_path / "images" / "cat")  # no loop: another name of cat
    found = list_images(tmp_path / "images")
    assert [path.parent.name for path in found.images] == ["cat", "same"]
    assert names(found.left_out[LOOP]) == ["up", "up"]


@pytest.mark.parametrize("suffix", [".avif", ".heic", ".heif"])
@pytest.mark.parametrize("decodable", [True, False])
def test_optional_formats_are_images_where_pillow_decodes_them(
    monkeypatch: pytest.MonkeyPatch, suffix: str, decodable: bool
) -> None:
    known = {suffix: "PNG"} if decodable else {}
    monkeypatch.setattr(Image, "registered_extensions", lambda: known)
    assert reason_against(f"a{suffix.upper()}") == (None if decodable else UNSUPPORTED)


def test_what_is_left_out_is_counted_by_reason() -> None:
    left_out = {
        NO_FORMAT: [Path("a.txt"), Path("b.TXT"), Path("c")],
        HIDDEN: [Path(f"train/.{i}") for i in range(5)],
        BROKEN: [Path("a\x1b[2J\udcff.png")],
    }
    assert left_out_text(left_out) == (
        "9 left out: 3 not an image format (.txt, no suffix), 5 hidden or made by a tool (.0, .1, .2 and 2 more),"
        " 1 broken link (a\\x1b[2J\\udcff.png)"
    )

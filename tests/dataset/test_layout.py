"""The layouts of a user's folder: names of parts, links, and files that are left out or refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from image_sets import load_folder, make_folder, refusal, save, values
from PIL import features

from sqakd.dataset.layout import VALIDATION
from sqakd.image_files import ImageFiles, list_images


def left_out(folder: Path) -> str:
    return str(load_folder(folder).summary()).partition("; ")[2]


# names of the parts


@pytest.mark.parametrize("name", VALIDATION)
def test_the_validation_folder_has_three_names(labelled: Path, name: str) -> None:
    (labelled / "val").rename(labelled / name)
    data = load_folder(labelled)
    assert values(data.val_images) == [20, 30, 31]
    assert data.val_labels is not None
    assert data.val_labels.tolist() == [0, 1, 1]
    assert "held out" not in str(data.summary())


def test_two_validation_folders_are_refused(labelled: Path) -> None:
    shutil.copytree(labelled / "val", labelled / "validation")
    assert "has val/ and validation/; expected one validation folder" in refusal(lambda: load_folder(labelled))


@pytest.mark.parametrize(
    ("right", "wrong"), [("val", "Val"), ("val", "VALIDATION"), ("train", "Train"), ("train", "training")]
)
def test_almost_the_right_name_is_refused(labelled: Path, right: str, wrong: str) -> None:
    (labelled / right).rename(labelled / wrong)
    message = refusal(lambda: load_folder(labelled))
    assert f"{labelled / wrong}: expected the name {right} for this folder" in message


def test_other_folders_and_files_beside_train_are_reported(labelled: Path) -> None:
    save(labelled / "test" / "0.png", 9)
    save(labelled / "loose.png", 9)
    (labelled / "README.txt").touch()
    data = load_folder(labelled)
    assert values(data.train_images) == [0, 1, 2, 10, 11]
    assert left_out(labelled) == (
        "3 left out: 1 not an image format (.txt), 2 outside train/ and the validation folder (loose.png, test)"
    )


def test_folders_beside_unlabelled_images_are_reported(flat: Path) -> None:
    (flat / "empty").mkdir()
    assert left_out(flat) == "1 left out: 1 subfolder(s) (empty)"
    for i in range(30):
        save(flat / "more" / "deep" / f"{i}.png", 9)
    (flat / "more" / "notes.txt").touch()
    assert left_out(flat) == "2 left out: 2 subfolder(s) with 30 image(s) (empty, more)"


def test_a_subfolder_that_cannot_be_listed_does_not_matter(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path, *, deep: bool = True) -> ImageFiles:
        if folder.name == "secret":
            raise PermissionError(folder)
        return list_images(folder, deep=deep)

    (flat / "secret").mkdir()
    monkeypatch.setattr("sqakd.dataset.layout.list_images", refuse)
    assert left_out(flat) == "1 left out: 1 subfolder(s) (secret)"


def test_a_validation_folder_beside_unlabelled_images_is_refused(flat: Path) -> None:
    save(flat / "val" / "0.png", 9)
    assert "found no training images and 1 validation images" in refusal(lambda: load_folder(flat))


def test_class_folders_without_train_are_named(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        save(tmp_path / "images" / name / "0.png", 0)
    message = refusal(lambda: load_folder(tmp_path / "images"))
    assert "(2 left out: 2 subfolder(s) with 2 image(s) (cat, dog)); expected train/CLASS/IMAGE" in message
    assert message.endswith(f"; folders of classes belong in {tmp_path / 'images' / 'train'}")


# hidden folders and links


@pytest.mark.parametrize("name", [".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir"])
def test_hidden_and_tool_folders_are_no_classes(labelled: Path, name: str) -> None:
    save(labelled / "train" / name / "0.png", 9)
    save(labelled / "val" / name / "0.png", 9)
    data = load_folder(labelled)
    assert data.class_names == ["cat", "dog"]
    assert values(data.train_images) == [0, 1, 2, 10, 11]
    assert left_out(labelled) == f"2 left out: 2 hidden or made by a tool ({name})"


@pytest.mark.parametrize("linked", ["train/cat", "val/dog", "train", "val", "train/cat/0.png"])
def test_links_behave_like_what_they_lead_to(labelled: Path, linked: str) -> None:
    plain, place = load_folder(labelled), labelled / linked
    place.rename(labelled.parent / "elsewhere")
    place.symlink_to(labelled.parent / "elsewhere")
    data = load_folder(labelled)
    assert (data.class_names, data.train_files, data.val_files) == (
        plain.class_names,
        plain.train_files,
        plain.val_files,
    )
    assert values(data.train_images) == values(plain.train_images)
    assert data.fingerprint() == plain.fingerprint(), "the run stays the same"


def test_a_link_to_a_parent_folder_and_a_broken_link_are_reported(labelled: Path) -> None:
    (labelled / "train" / "cat" / "up").symlink_to(labelled / "train")
    (labelled / "train" / "cat" / "lost.png").symlink_to(labelled / "absent.png")
    assert left_out(labelled) == ("2 left out: 1 broken link (lost.png), 1 link to one of its own parent folders (up)")


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_that_is_a_broken_link_is_refused(labelled: Path, part: str) -> None:
    shutil.rmtree(labelled / part)
    (labelled / part).symlink_to(labelled.parent / "absent")
    assert f"{labelled / part} is a broken link" in refusal(lambda: load_folder(labelled))


def test_one_training_image_alone_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "images" / "train" / "0.png", 0)
    message = refusal(lambda: load_folder(tmp_path / "images"))
    assert message.startswith("found one training image and no validation image in ")


# formats


def test_jfif_is_read_as_jpeg(labelled: Path) -> None:
    (labelled / "train" / "cat" / "0.png").unlink()
    save(labelled / "train" / "cat" / "0.jpg", 7)
    (labelled / "train" / "cat" / "0.jpg").rename(labelled / "train" / "cat" / "0.jfif")
    assert sorted(values(load_folder(labelled).train_images)) == [1, 2, 7, 10, 11]


@pytest.mark.skipif(not features.check("avif"), reason="this pillow has no AVIF")
def test_avif_is_read(labelled: Path) -> None:
    save(labelled / "train" / "cat" / "9.avif", 0, size=(64, 64))
    assert len(load_folder(labelled).train_images) == 6


def replace_by_heic(folder: Path) -> int:
    """Replace all images below a folder by files in a format that pillow cannot read; return their number."""
    files = sorted(folder.rglob("*.png"))
    for file in files:
        file.rename(file.with_suffix(".heic"))
    return len(files)


@pytest.mark.parametrize("unreadable", ["refuse", "skip"])
@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("val", "val has no image that can be read: 3 left out: 3 in an image format that cannot be read here (.heic)"),
        ("train", "train has no image that can be read: 5 left out"),
        ("train/cat", "class folder(s) without images in {folder}/train: cat (3 left out: 3 in an image format"),
        ("val/dog", "class folder(s) without images in {folder}/val: dog (2 left out: 2 in an image format"),
    ],
)
def test_a_part_or_a_class_in_an_unsupported_format_is_refused(
    labelled: Path, part: str, found: str, unreadable: str
) -> None:
    assert replace_by_heic(labelled / part)
    assert found.format(folder=labelled) in refusal(lambda: load_folder(labelled, unreadable=unreadable))


def test_a_part_of_a_class_in_an_unsupported_format_is_refused_or_reported(labelled: Path) -> None:
    file = labelled / "train" / "cat" / "0.png"
    file.rename(file.with_suffix(".heic"))
    message = refusal(lambda: load_folder(labelled))
    assert f"1 of 8 image files have a format that cannot be read here: {file.with_suffix('.heic')}; convert" in message
    assert "dataset.unreadable=skip" in message
    data = load_folder(labelled, unreadable="skip")
    assert values(data.train_images) == [1, 2, 10, 11]
    assert str(data.summary()).endswith("1 left out: 1 in an image format that cannot be read here (.heic)")


@pytest.mark.parametrize("part", ["train/cat", "val/cat"])
def test_skipping_unreadable_files_empties_no_class(labelled: Path, part: str) -> None:
    files = sorted((labelled / part).iterdir())
    for file in files:
        file.write_bytes(b"no image")
    for _ in range(2):  # decoded, then from the cache
        message = refusal(lambda: load_folder(labelled, unreadable="skip"))
        assert f"no image of the class(es) cat can be read: {files[0]}" in message


def test_skipping_unreadable_files_leaves_validation_images(flat: Path) -> None:
    save(flat / "train" / "0.png", 0)
    (flat / "val").mkdir()
    (flat / "val" / "0.png").write_bytes(b"no image")
    assert "1 of 1 files are not readable images" in refusal(lambda: load_folder(flat, unreadable="skip"))


# classes and identity


def test_one_class_is_refused(labelled: Path) -> None:
    for part in ("train", "val"):
        shutil.rmtree(labelled / part / "dog")
    message = refusal(lambda: load_folder(labelled))
    assert message.startswith("all images are of one class (cat); expected at least two; for images without labels put")


def test_a_name_that_is_not_utf_8_is_read(flat: Path) -> None:
    save(flat / "0.png", 0)
    (flat / "0.png").rename(flat / "\udcff.png")
    data = load_folder(flat)
    assert len(data.train_images) + len(data.val_images) == 10
    assert data.fingerprint()


def test_files_that_are_left_out_change_no_identity(labelled: Path) -> None:
    before = make_folder(labelled).fingerprint()
    (labelled / "notes.txt").touch()
    save(labelled / "test" / "0.png", 9)
    save(labelled / "train" / ".cache" / "0.png", 9)
    assert make_folder(labelled).fingerprint() == before
    save(labelled / "train" / "cat" / "9.png", 9)
    assert make_folder(labelled).fingerprint() != before


def plain_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.png")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def test_identity_is_a_digest_of_names_and_sizes(labelled: Path) -> None:
    """Runs made before are found again only if this digest never changes."""
    shutil.rmtree(labelled / "val")
    for i in range(4, 20):
        save(labelled / "train" / "cat" / f"{i}.png", i)
        save(labelled / "train" / "dog" / f"{i}.png", i)
    assert make_folder(labelled).fingerprint() == plain_digest(labelled)


@pytest.mark.parametrize("change", [{"val_fraction": 0.001}, {"holdout": 0.25}])
def test_a_split_that_is_repaired_has_another_identity(labelled: Path, change: dict[str, float]) -> None:
    """Runs of versions that left a class out of the split had other images."""
    if "val_fraction" in change:
        shutil.rmtree(labelled / "val")
    data = load_folder(labelled, **change)
    assert data.val_labels is not None
    assert data.val_labels.tolist() == [0, 1]
    assert data.fingerprint() != plain_digest(labelled)

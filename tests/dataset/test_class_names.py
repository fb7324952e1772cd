"""Names of classes that a user gives: where they come from, and what they mean for labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from image_sets import load_folder, refusal, values

from sqakd.dataset.class_names import read_class_names


@pytest.mark.parametrize("content", ["dog\ncat\n", "\ufeffdog\r\ncat\r\n\r\n", " dog \ncat"])
def test_a_file_has_one_name_per_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(content, newline="", encoding="utf-8")
    assert read_class_names(str(tmp_path / "names.txt")) == ["dog", "cat"]


def test_numbers_are_names_too() -> None:
    assert read_class_names([1, 0, "two"]) == ["1", "0", "two"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (3, "classes=3: expected a list of names, or a file"),
        ([1.5, 2], "classes=[1.5, 2]: expected a list of names"),
        (["cat", ""], "classes: name 2 of 2 is empty"),
        (["cat"], "classes: found 1 class name(s); expected at least two"),
        ("absent.txt", "cannot read the class names in absent.txt: No such file"),
    ],
)
def test_what_is_no_list_of_names_is_refused(classes: Any, message: str) -> None:
    assert message in refusal(lambda: read_class_names(classes))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe\x00c")
    assert "not UTF-8 text" in refusal(lambda: read_class_names(str(tmp_path / "names.txt")))


def test_class_folders_get_their_labels_in_the_given_order(labelled: Path) -> None:
    data = load_folder(labelled, classes=["dog", "cat"])
    assert data.class_names == ["dog", "cat"]
    assert data.train_labels is not None
    assert (values(data.train_images), data.train_labels.tolist()) == ([0, 1, 2, 10, 11], [1, 1, 1, 0, 0])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["dog", "cow"], "the given classes lack cat and add cow;"),
        (["dog", "cat", "cow"], "the given classes add cow;"),
        (["dog", "cat", "dog"], "the given classes have 3 names for 2 folders;"),
    ],
)
def test_other_names_than_those_of_the_folders_are_refused(classes: list[str], message: str, labelled: Path) -> None:
    assert message in refusal(lambda: load_folder(labelled, classes=classes))


def test_images_without_labels_get_names_and_stay_unlabelled(flat: Path) -> None:
    data = load_folder(flat, classes=["cat", "dog", "cow"])
    assert (data.class_names, data.labelled, data.num_classes) == (["cat", "dog", "cow"], False, None)


def test_the_names_are_part_of_the_images_identity(flat: Path) -> None:
    digests = {load_folder(flat, classes=classes).fingerprint() for classes in (None, ["a", "b"], ["b", "a"])}
    assert len(digests) == 3

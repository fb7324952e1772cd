"""The user's own images: layouts, labels, split, and what is refused."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from image_sets import SIZE, load_folder, make_folder, refusal, save, values

from sqakd.dataset import imagefolder
from sqakd.dataset.split import split_by_name
from sqakd.errors import SqakdError


def test_class_folders_are_the_labels(labelled: Path) -> None:
    (labelled / "train" / "cat" / "notes.txt").write_text("not an image by its name: ignored")
    data = load_folder(labelled)
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


def test_class_folders_without_val_are_split_with_their_labels(labelled: Path) -> None:
    for file in sorted((labelled / "val").rglob("*.png")):
        file.unlink()
    data = load_folder(labelled)
    assert data.train_labels is not None
    assert data.val_labels is not None
    assert sorted(values(data.train_images) + values(data.val_images)) == [0, 1, 2, 10, 11]
    for images, labels in ((data.train_images, data.train_labels), (data.val_images, data.val_labels)):
        assert labels.tolist() == [value // 10 for value in values(images)]
    assert len(data.val_labels) >= 1


def test_flat_folder_is_unlabelled_and_split_in_the_same_way_for_every_seed(flat: Path) -> None:
    data = load_folder(flat)
    assert not data.labelled
    assert data.num_classes is None
    assert data.train_labels is data.val_labels is None
    assert 1 <= len(data.val_images) < len(data.train_images)
    assert sorted(values(data.train_images) + values(data.val_images)) == list(range(10))
    assert values(load_folder(flat, seed=1).val_images) == values(data.val_images)
    assert all(batch.label is None for batch in data.train_dataloader())


def test_adding_files_moves_no_other_file_to_another_part() -> None:
    files = [f"{i:04d}.png" for i in range(2000)]
    train, val = split_by_name(files[::2], str, 0.2)
    assert sorted(train + val) == files[::2]
    assert abs(len(val) - 200) < 5 * (1000 * 0.2 * 0.8) ** 0.5
    more_train, more_val = split_by_name(files, str, 0.2)
    assert set(train) < set(more_train)
    assert set(val) < set(more_val)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_neither_part_of_a_split_is_empty(share: float) -> None:
    train, val = split_by_name(["a.png", "b.png"], str, share)
    assert len(train) == len(val) == 1


def test_an_empty_train_folder_next_to_images_is_ignored(flat: Path) -> None:
    (flat / "train").mkdir()
    data = load_folder(flat)
    assert not data.labelled
    assert sorted(values(data.train_images) + values(data.val_images)) == list(range(10))


def test_train_and_val_without_class_folders_are_unlabelled(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for i in range(4):
        save(folder / "train" / f"{i}.png", i)
    for i in range(3):
        save(folder / "val" / f"{i}.png", 10 + i)
    data = load_folder(folder)
    assert not data.labelled
    assert values(data.train_images) == [0, 1, 2, 3]
    assert values(data.val_images) == [10, 11, 12]


# work that is done once


@pytest.mark.parametrize("inside", ["labelled", "flat"])
def test_the_status_of_each_image_is_read_once(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    folder: Path = request.getfixturevalue(inside)
    counts: Counter[str] = Counter()
    read_status = os.stat

    def counted(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        counts[str(path)] += 1
        return read_status(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", counted)
    data = make_folder(folder)
    data.fingerprint()
    data.setup()
    data.fingerprint()
    images = [str(path) for path in folder.rglob("*.png")]
    assert images
    assert {counts[image] for image in images} == {1}


def test_images_are_split_once_with_classes_and_once_without(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(labelled / "val")
    grouped: list[bool] = []

    def counted(*arguments: Any, group: Callable[[Path], str] | None) -> tuple[list[Path], list[Path]]:
        grouped.append(group is not None)
        return split_by_name(*arguments, group=group)

    monkeypatch.setattr(imagefolder, "split_by_name", counted)
    data = make_folder(labelled)
    data.fingerprint()
    data.setup()
    data.fingerprint()
    assert sorted(grouped) == [False, True]


# errors


def test_class_that_only_val_has_is_refused(labelled: Path) -> None:
    save(labelled / "val" / "horse" / "0.png", 0)
    assert "classes that train/ does not have: horse; train/ has cat, dog" in refusal(lambda: load_folder(labelled))


def test_class_folder_without_images_is_refused(labelled: Path) -> None:
    (labelled / "train" / "horse").mkdir()
    assert f"without images in {labelled / 'train'}: horse" in refusal(lambda: load_folder(labelled))


@pytest.mark.parametrize("part", ["train", "val"])
def test_image_outside_the_class_folders_is_refused(labelled: Path, part: str) -> None:
    save(labelled / part / "loose.png", 0)
    assert "loose.png is in no class folder" in refusal(lambda: load_folder(labelled))


@pytest.mark.parametrize("inside", ["nothing", "one image", "only val", "a class folder"])
def test_folder_with_too_few_images_is_refused(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    files = {"nothing": [], "one image": ["0.png"], "only val": ["val/0.png"], "a class folder": ["cat/0.png"]}
    for name in files[inside]:
        save(folder / name, 0)
    message = refusal(lambda: load_folder(folder))
    assert str(folder) in message
    assert "train/CLASS/IMAGE" in message


def test_missing_folder_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    message = refusal(lambda: load_folder(tmp_path / "images"))
    assert "dataset.folder=FOLDER" in message
    assert f"{tmp_path / 'images'} is not a folder" in message
    assert "train/CLASS/IMAGE" in message
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 0},
        {"image_size": 2.5},
        {"val_fraction": 0.0},
        {"val_fraction": 1},
        {"unreadable": "ignore"},
        {"resize": SIZE - 1},
        {"classes": 3},
    ],
)
def test_wrong_options_are_refused_at_construction(flat: Path, wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(SqakdError, match=f"^{name}='?{value}'?: expected"):
        make_folder(flat, **wrong)

"""The hold-out: each class in both parts, and splits that have all classes stay as they were."""

from __future__ import annotations

import pytest
import torch
from image_sets import COMMON, refusal
from torch import Tensor

from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.split import SPLIT_SEED, in_both_parts, split_by_name, split_by_share


def first(name: str) -> str:
    return name[0]


def test_a_split_with_all_classes_stays_as_it_is() -> None:
    files = [f"{name}{i}" for name in "abc" for i in range(100)]
    assert split_by_name(files, str, 0.2, group=first) == split_by_name(files, str, 0.2)
    plain, grouped = split_by_share(300, 0.2), split_by_share(300, 0.2, group=lambda i: i // 100)
    assert all(map(torch.equal, plain, grouped))


def test_a_random_split_is_the_one_of_earlier_versions() -> None:
    order = torch.randperm(50, generator=torch.Generator().manual_seed(SPLIT_SEED))
    rest, held_out = split_by_share(50, 0.2, group=lambda _: "all")
    assert held_out.tolist() == sorted(order[:10].tolist())
    assert rest.tolist() == sorted(order[10:].tolist())


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_each_class_is_in_both_parts(share: float) -> None:
    files = [f"{name}{i}" for name in "abcdefgh" for i in range(2)]
    train, val = split_by_name(files, str, share, group=first)
    assert sorted(train + val) == files
    assert {name[0] for name in train} == {name[0] for name in val} == set("abcdefgh")


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_each_class_is_in_both_parts_of_a_random_split(share: float) -> None:
    rest, held_out = split_by_share(100, share, group=lambda i: i % 9)
    assert sorted(rest.tolist() + held_out.tolist()) == list(range(100))
    assert {i % 9 for i in rest.tolist()} == {i % 9 for i in held_out.tolist()} == set(range(9))
    assert min(len(rest), len(held_out)) == 9, "no more than needed is moved"


def test_the_next_in_the_order_is_moved() -> None:
    assert in_both_parts(["b1", "a2", "b2"], ["a1"], first) == (["a2", "b2"], ["a1", "b1"])
    assert in_both_parts(["b2"], ["a1", "b1", "a2"], first) == (["b2", "a2"], ["a1", "b1"])


class Counted(str):
    """A name that counts how often names are compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__eq__(other)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_items_are_moved_without_comparing_each_with_each(share: float) -> None:
    files = [Counted(f"{i // 2:03d}/{i}") for i in range(400)]
    Counted.compared = 0
    train, val = split_by_name(files, str, share, group=lambda file: file[:3])
    assert Counted.compared < len(files)
    assert len(train) == len(val) == 200


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_class_with_a_single_image_is_refused(share: float) -> None:
    message = refusal(lambda: split_by_name(["a1", "b1", "b2"], str, share, group=first))
    assert message.startswith("class(es) with a single image: a; expected at least two images in each class")


class Two(ImageDataModule):
    """Two classes, the second of which has `rare` images; a hundred training images."""

    def __init__(self, *, rare: int, holdout: float) -> None:
        super().__init__(**COMMON | {"holdout": holdout})
        self.rare = rare

    def load(self) -> None:
        self.class_names = ["cat", "dog"]
        self.train_images = torch.zeros(100, 3, 4, 4, dtype=torch.uint8)
        self.train_labels = (torch.arange(100) < self.rare).long()
        self.val_images, self.val_labels = self.train_images[:4], self.train_labels[:4]


def test_a_holdout_keeps_every_class_in_both_parts() -> None:
    for holdout in (0.01, 0.99):
        data = Two(rare=2, holdout=holdout)
        data.setup()
        assert data.train_labels is not None
        assert data.val_labels is not None
        assert set(data.train_labels.tolist()) == set(data.val_labels.tolist()) == {0, 1}


def test_a_holdout_reads_all_labels_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    indices: list[object] = []
    index = Tensor.__getitem__
    monkeypatch.setattr(Tensor, "__getitem__", lambda self, key: indices.append(key) or index(self, key))  # type: ignore[func-returns-value]
    Two(rare=2, holdout=0.5).setup()
    assert 0 < len(indices) < 50


def test_a_holdout_from_a_single_image_is_refused() -> None:
    assert "class(es) with a single image: dog (class 1)" in refusal(Two(rare=1, holdout=0.5).setup)
    Two(rare=1, holdout=0.0).setup()

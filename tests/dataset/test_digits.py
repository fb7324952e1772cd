"""The digits: sizes, split and statistics; holding images out and limiting their number."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from image_sets import COMMON
from sklearn.datasets import load_digits

from sqakd.dataset.digits import Digits
from sqakd.errors import SqakdError

CONFIG = Path(__file__).parents[2] / "conf/dataset/digits.yaml"


def make_digits(**changes: Any) -> Digits:
    data = Digits(**COMMON | {"image_size": 32} | changes)
    data.setup()
    return data


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True), (None, False)])
def test_a_training_on_the_cpu_pins_no_memory(
    device: str | None, pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pinned memory belongs to a GPU, which others may be using. Evaluations before a training have no trainer."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    data = make_digits(image_size=8, limit=20)
    strategy = SimpleNamespace(root_device=torch.device(device or "cpu"))
    if device is not None:
        data.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1)  # type: ignore[assignment]
    assert data.train_dataloader().pin_memory is pinned


def test_sizes_and_types() -> None:
    data = make_digits()
    assert data.train_images.shape == (1437, 3, 32, 32)
    assert data.val_images.shape == (360, 3, 32, 32)
    assert data.train_labels is not None
    assert data.val_labels is not None
    assert (len(data.train_labels), len(data.val_labels)) == (1437, 360)
    for images in (data.train_images, data.val_images):
        assert images.dtype == torch.uint8
        assert images.is_contiguous()
        assert (images[:, :1] == images).all(), "grey in all channels"
        assert int(images.max()) == 255
    assert data.train_labels.dtype == torch.int64
    assert data.class_names == list("0123456789")
    assert data.num_classes == 10


def test_the_split_does_not_depend_on_the_seed() -> None:
    first, second = make_digits(seed=0), make_digits(seed=5)
    assert torch.equal(first.train_images, second.train_images)
    assert torch.equal(first.val_images, second.val_images)
    assert first.train_labels is not None
    assert second.train_labels is not None
    assert torch.equal(first.train_labels, second.train_labels)


def test_each_image_is_in_exactly_one_part_with_its_label() -> None:
    """Find each image among the enlarged originals, and compare its label."""
    data, original = make_digits(), load_digits()
    assert data.train_labels is not None
    assert data.val_labels is not None
    labels = torch.cat([data.train_labels, data.val_labels])
    images = torch.cat([data.train_images, data.val_images])[:, 0].float()
    source = torch.from_numpy(original.images).float()[:, None] * (255 / 16)
    enlarged = torch.nn.functional.interpolate(source, size=(32, 32), mode="bilinear")[:, 0]

    nearest = torch.cdist(images.flatten(1), enlarged.flatten(1)).min(1)

    assert nearest.values.max() < 0.5 * 32, "rounding moves no pixel by more than one half"
    assert sorted(nearest.indices.tolist()) == list(range(1797))
    assert torch.equal(labels, torch.from_numpy(original.target)[nearest.indices].long())


def test_training_and_validation_have_no_image_in_common() -> None:
    data = make_digits()
    train = {image.numpy().tobytes() for image in data.train_images[:, 0]}
    val = {image.numpy().tobytes() for image in data.val_images[:, 0]}
    assert not train & val


def test_the_split_keeps_the_share_of_each_class() -> None:
    data = make_digits()
    assert data.train_labels is not None
    assert data.val_labels is not None
    train, val = torch.bincount(data.train_labels), torch.bincount(data.val_labels)
    assert len(train) == len(val) == 10
    assert ((train + val) * 360 / 1797 - val).abs().max() <= 1


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_mean_and_std_of_the_configuration_are_those_of_the_training_images(channel: int) -> None:
    config = yaml.safe_load(CONFIG.read_text())
    pixels = make_digits().train_images[:, channel].double() / 255
    assert config["mean"][channel] == pytest.approx(pixels.mean().item(), abs=1e-3)
    assert config["std"][channel] == pytest.approx(pixels.std().item(), abs=1e-3)


def test_digits_are_never_mirrored() -> None:
    assert yaml.safe_load(CONFIG.read_text())["augment"]["flip"] is False


def test_images_can_be_enlarged_to_another_size_but_not_shrunk() -> None:
    data = make_digits(image_size=16)
    assert data.train_images.shape == (1437, 3, 16, 16)
    assert data.image_shape == (3, 16, 16)
    with pytest.raises(SqakdError, match="image_size=7: expected a whole number of at least 8"):
        make_digits(image_size=7)


def test_a_limited_data_set_has_the_same_images_in_every_run() -> None:
    few, again, whole = make_digits(limit=50), make_digits(limit=50, seed=7), make_digits()
    assert (len(few.train_images), len(few.val_images)) == (50, 50)
    assert torch.equal(few.train_images, again.train_images)
    assert few.train_labels is not None
    assert whole.train_labels is not None
    assert len(set(few.train_labels.tolist())) > 5, "classes are mixed"
    pairs = zip(whole.train_images, whole.train_labels, strict=True)
    known = {image.numpy().tobytes(): int(label) for image, label in pairs}
    for image, label in zip(few.train_images, few.train_labels, strict=True):
        assert known[image.numpy().tobytes()] == int(label)


def test_held_out_images_come_from_the_training_images() -> None:
    whole, search, again = make_digits(), make_digits(holdout=0.2), make_digits(holdout=0.2, seed=3)
    assert (len(search.train_images), len(search.val_images)) == (1437 - 287, 287)
    train, val, test = (
        [image.numpy().tobytes() for image in images]
        for images in (search.train_images, search.val_images, whole.val_images)
    )
    original = [image.numpy().tobytes() for image in whole.train_images]
    assert sorted(train + val) == sorted(original)
    assert not set(val) & (set(test) - set(original))
    assert torch.equal(search.val_images, again.val_images)
    assert search.val_labels is not None
    assert len(search.val_labels) == 287


@pytest.mark.parametrize(
    "change", [{"holdout": 1.0}, {"holdout": -0.1}, {"holdout": True}, {"limit": 0}, {"limit": 2.5}]
)
def test_impossible_holdouts_and_limits_are_refused(change: dict[str, Any]) -> None:
    (key,) = change
    with pytest.raises(SqakdError, match=f"^{key}=.*: expected"):
        make_digits(**change)


@pytest.mark.parametrize("holdout", [0.0001, 0.9999])
def test_a_holdout_that_leaves_one_side_empty_is_refused(holdout: float) -> None:
    with pytest.raises(SqakdError, match=f"holdout={holdout} of 1437 training images leaves no image on one side"):
        make_digits(holdout=holdout)

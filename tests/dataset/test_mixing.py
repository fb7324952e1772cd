"""CutMix and TrivialAugment, compared with one image at a time, on several ranks, and for student and teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import small
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from sqakd.dataset.loader import Loader
from sqakd.dataset.transforms.augment import Augment, Compose, CropFlip, Unchanged
from sqakd.dataset.transforms.cutmix import CutMix, partners
from sqakd.dataset.transforms.trivial import CHANGES, LEVELS, TrivialAugment
from sqakd.errors import SqakdError
from sqakd.randomness import stream

BOTH: list[Augment] = [CutMix(probability=1.0), TrivialAugment(strength=1.0, translate=0.5)]


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=stream(seed))


# both


@pytest.mark.parametrize("augment", BOTH)
def test_images_are_a_function_of_the_stream_and_the_originals_are_not_modified(augment: Augment) -> None:
    images = random_images(32, 3, 12, 10)
    before = images.clone()
    once, again, other = (augment(images, augment.draw(32, stream(seed, 3))) for seed in (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert torch.equal(images, before)
    assert (once.shape, once.dtype) == (images.shape, images.dtype)


@pytest.mark.parametrize("augment", BOTH)
def test_two_devices_process_the_same_images_as_one(augment: Augment) -> None:
    images = random_images(40, 3, 6, 6)
    common: dict[str, Any] = {"images": images, "labels": None, "batch_size": 16, "shuffle": True, "augment": augment}
    common |= {"seed": 0, "drop_last": False, "pin_memory": False}
    (whole, *halves) = (
        [augment(batch.image, batch.draws) for batch in Loader(**common, rank=rank, world_size=world)]
        for rank, world in ((0, 1), (0, 2), (1, 2))
    )
    assert len(whole) == 3
    for step, expected in enumerate(whole):
        assert torch.equal(torch.cat([half[step] for half in halves]), expected), step


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CutMix(probability=0.0), "^probability=0.0: expected"),
        (lambda: CutMix(probability=1.5), "^probability=1.5: expected"),
        (lambda: TrivialAugment(strength=2, translate=0.5), "^strength=2: expected"),
        (lambda: TrivialAugment(strength=1, translate=0), "^translate=0: expected"),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], Augment], message: str) -> None:
    with pytest.raises(SqakdError, match=message):
        make()


# CutMix


def test_a_box_comes_from_the_neighbour_and_the_rest_stays() -> None:
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 3, 20, 10).contiguous()
    draws = {
        "area": torch.tensor([0.25] * 6),
        "row": torch.tensor([0.5, 0.0, 1.0] * 2),
        "column": torch.full((6,), 0.5),
    }
    mixed = CutMix(probability=1.0)(images, draws)
    expected = images.clone()
    for i, (top, bottom) in enumerate([(5, 15), (0, 5), (15, 20)] * 2):  # half the height, cut off at the border
        expected[i, :, top:bottom, 2:8] = i ^ 1  # half the width: the pixels whose middle is in [2.5, 7.5]
    assert torch.equal(mixed[:, :, :, 3:7], expected[:, :, :, 3:7])
    assert torch.equal(mixed[:, :, :, :2], images[:, :, :, :2])
    assert torch.equal(mixed[:, :, :, 8:], images[:, :, :, 8:])


def test_the_share_of_the_neighbour_is_that_of_uniform_boxes() -> None:
    """The mean share would be E[r] = 1/2 if no box were cut off at the border."""
    n, side = 4000, 24
    images = torch.tensor([0, 1], dtype=torch.uint8).repeat(n // 2).view(n, 1, 1, 1).expand(n, 1, side, side)
    mixed = CutMix(probability=1.0)(images, CutMix(probability=1.0).draw(n, stream(0)))
    share = (mixed != images).float().mean((1, 2, 3))
    # Along one axis a box of length s with a uniform centre covers s - s^2 / 4; both axes: E[(s - s^2 / 4)^2], s^2 = r.
    expected = 1 / 2 - 2 / 4 * (2 / 5) + 1 / 16 * (1 / 3)
    assert float(share.mean()) == pytest.approx(expected, abs=0.02)
    assert float(share.min()) < 0.01
    assert float(share.max()) > 0.9


def test_the_share_of_mixed_images_is_the_probability() -> None:
    draws = CutMix(probability=0.25).draw(4000, stream(0))
    assert float((draws["area"] > 0).float().mean()) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
def test_only_a_single_image_is_its_own_partner(n: int) -> None:
    other = partners(n, torch.device("cpu"))
    assert len(other) == n
    assert int(other.min()) >= 0
    assert int(other.max()) < n
    assert bool((other != torch.arange(n)).all()) == (n > 1)


# TrivialAugment


def oracle(image: Tensor, change: str, level: float, sign: int) -> Tensor:
    """Return one image as torchvision changes it."""
    height, width = image.shape[-2:]
    signed = level * sign
    shear, factor = math.degrees(math.atan(0.99 * signed)), 1 + 0.99 * signed
    right, down = round(-0.5 * width * signed), round(-0.5 * height * signed)
    changes: dict[str, Callable[[], Tensor]] = {
        "nothing": lambda: image,
        "shear_x": lambda: transforms.affine(image, 0.0, [0, 0], 1.0, [shear, 0.0]),
        "shear_y": lambda: transforms.affine(image, 0.0, [0, 0], 1.0, [0.0, shear]),
        "shift_x": lambda: transforms.affine(image, 0.0, [right, 0], 1.0, [0.0, 0.0]),
        "shift_y": lambda: transforms.affine(image, 0.0, [0, down], 1.0, [0.0, 0.0]),
        "rotate": lambda: transforms.rotate(image, 135 * signed),
        "brightness": lambda: transforms.adjust_brightness(image, factor),
        "colour": lambda: transforms.adjust_saturation(image, factor),
        "contrast": lambda: transforms.adjust_contrast(image, factor),
        "sharpness": lambda: transforms.adjust_sharpness(image, factor),
        "posterize": lambda: transforms.posterize(image, 8 - round(6 * level)),
        "solarize": lambda: transforms.solarize(image, 255 * (1 - level)),
        "autocontrast": lambda: transforms.autocontrast(image),
        "equalize": lambda: transforms.equalize(image),
    }
    return changes[change]()


@pytest.mark.parametrize("change", CHANGES)
def test_a_batch_is_changed_as_torchvision_changes_each_image(change: str) -> None:
    levels = [i / (LEVELS - 1) for i in range(0, LEVELS, 3)]
    cases = [(level, sign) for level in levels for sign in (-1, 1)]
    images = random_images(len(cases), 3, 30, 28)
    draws = {
        "change": torch.full((len(cases),), CHANGES.index(change)),
        "level": torch.tensor([level for level, _ in cases]),
        "sign": torch.tensor([sign for _, sign in cases]),
    }
    changed = TrivialAugment(strength=1.0, translate=0.5)(images, draws)
    expected = torch.stack([oracle(image, change, *case) for image, case in zip(images, cases, strict=True)])
    off = (changed.int() - expected.int()).abs()
    # torchvision truncates twice where this code rounds once, and a position halfway between two pixels may be
    # rounded to the other one.
    assert float((off > 2).float().mean()) < 0.005, change
    assert change == "nothing" or not torch.equal(changed, images)


def test_each_image_of_a_batch_has_its_own_change() -> None:
    augment, images = TrivialAugment(strength=1.0, translate=0.5), random_images(64, 3, 8, 8)
    draws = augment.draw(64, stream(0))
    alone = [augment(images[i : i + 1], {k: v[i : i + 1] for k, v in draws.items()}) for i in range(64)]
    assert torch.equal(augment(images, draws), torch.cat(alone))


def test_all_changes_and_strengths_are_drawn_evenly() -> None:
    n = 20_000
    draws = TrivialAugment(strength=0.5, translate=0.5).draw(n, stream(0))
    for values, count in ((draws["change"], len(CHANGES)), ((draws["level"] * 60).round().long(), LEVELS)):
        counts = torch.bincount(values, minlength=count)
        assert len(counts) == count
        assert counts.sub(n / count).abs().max() < 5 * (n / count) ** 0.5
    assert set(draws["sign"].tolist()) == {-1, 1}


def test_float_pixels_are_rounded_first() -> None:
    augment, images = TrivialAugment(strength=1.0, translate=0.5), random_images(16, 3, 8, 8)
    draws = augment.draw(16, stream(0))
    assert torch.equal(augment(images.float() + 0.25, draws), augment(images, draws))


# inside a data set


def test_mixing_comes_last_and_does_not_change_the_draws_of_earlier_steps() -> None:
    data = small.images()
    own = data.augment
    assert isinstance(own, CropFlip)
    assert not data.mixes
    data.extend({"cutmix": CutMix(probability=1.0), "trivial": TrivialAugment(strength=1.0, translate=0.5)})
    assert data.mixes
    assert isinstance(data.augment, Compose)
    assert list(data.augment.steps) == ["augment", "trivial", "cutmix"]
    draws = data.augment.draw(8, stream(0))
    assert all(torch.equal(draws[f"augment.{name}"], draw) for name, draw in own.draw(8, stream(0)).items())
    data.extend({})
    assert list(data.augment.steps) == ["augment", "trivial", "cutmix"], "nothing to add"


def test_without_an_augmentation_images_are_prepared_as_for_evaluation() -> None:
    data = small.images()
    data.augment, data.evaluate = None, lambda images: images.flip(3)
    data.extend({"cutmix": CutMix(probability=1.0)})
    assert isinstance(data.augment, Compose)
    assert isinstance(data.augment.steps["augment"], Unchanged)
    images = random_images(4, 3, 8, 8)
    draws = data.augment.draw(4, stream(0))
    cutmix = {k.removeprefix("cutmix."): v for k, v in draws.items()}
    assert torch.equal(data.augment(images, draws), CutMix(probability=1.0)(images.flip(3), cutmix))


def test_student_and_teacher_get_the_same_pixels() -> None:
    data = small.images()
    data.extend({"cutmix": CutMix(probability=1.0)})
    inputs: list[Tensor] = []
    student, teacher = small.quantized(), small.network(seed=1)
    for network in (student, teacher):
        network.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    task = small.make_task(student, teacher)
    (batch, *_) = data.train_dataloader()
    prepared = data.on_after_batch_transfer(batch, 0)
    task.eager_losses(prepared.image, None)
    assert len(inputs) == 2
    assert torch.equal(*inputs)
    plain = small.images().on_after_batch_transfer(batch._replace(draws={}), 0)
    assert not torch.equal(inputs[0], plain.image)

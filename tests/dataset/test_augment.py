"""Augmentation compared with one image at a time, normalisation compared with torchvision's transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import transforms

from sqakd.dataset.transforms.augment import Augment, Compose, CropFlip, normalize
from sqakd.dataset.transforms.colour import ColourJitter
from sqakd.dataset.transforms.resize import ResizedCropFlip
from sqakd.errors import SqakdError
from sqakd.randomness import stream


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=stream(seed))  # no pixel is black


def crop_flip_one(image: Tensor, top: int, left: int, mirror: bool, padding: int) -> Tensor:
    """Copy each pixel of the result from its origin; the pixel is black if the origin is outside the image."""
    height, width = image.shape[1:]
    changed = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            y = row + top - padding
            x = (width - 1 - column if mirror else column) + left - padding
            if 0 <= y < height and 0 <= x < width:
                changed[:, row, column] = image[:, y, x]
    return changed


@pytest.mark.parametrize(
    ("shape", "padding", "flip"),
    [((9, 3, 6, 6), 2, True), ((9, 3, 5, 8), 3, True), ((9, 1, 7, 4), 1, False), ((9, 3, 4, 4), 3, True)],
)
def test_crop_flip_equals_the_loop_over_images(shape: tuple[int, ...], padding: int, flip: bool) -> None:
    images = random_images(*shape)
    before = images.clone()
    augment = CropFlip(padding=padding, flip=flip)
    draws = augment.draw(len(images), stream(1))
    if flip:
        assert draws["mirror"].any()
        assert not draws["mirror"].all()

    changed = augment(images, draws)

    expected = [
        crop_flip_one(image, int(top), int(left), bool(mirror), padding)
        for image, top, left, mirror in zip(images, draws["top"], draws["left"], draws["mirror"], strict=True)
    ]
    assert changed.dtype == torch.uint8
    assert torch.equal(changed, torch.stack(expected))
    assert torch.equal(images, before), "the images of the data set are not modified"


def test_every_crop_is_drawn_equally_often() -> None:
    n, padding = 20_000, 2
    draws = CropFlip(padding=padding, flip=True).draw(n, stream(0))
    for name in ("top", "left"):
        counts = torch.bincount(draws[name], minlength=2 * padding + 1)
        assert len(counts) == 2 * padding + 1
        assert counts.sub(n / 5).abs().max() < 5 * (n * 0.2 * 0.8) ** 0.5  # five standard deviations
    assert abs(int(draws["mirror"].sum()) - n / 2) < 5 * (n / 4) ** 0.5
    places = torch.stack([draws["top"], draws["left"], draws["mirror"].long()]).double()
    assert torch.corrcoef(places).fill_diagonal_(0).abs().max() < 5 / n**0.5, "the draws are independent"


def test_draws_are_a_function_of_the_stream() -> None:
    augment = CropFlip(padding=4, flip=True)
    once, again, other = (augment.draw(64, stream(seed, 3)) for seed in (0, 0, 1))
    images = random_images(64, 3, 8, 8)
    for name in once:
        assert torch.equal(once[name], again[name])
        assert not torch.equal(once[name], other[name])
    assert torch.equal(augment(images, once), augment(images, again))
    assert not torch.equal(augment(images, once), augment(images, other))


def test_without_padding_images_only_flip() -> None:
    images = random_images(32, 3, 6, 6)
    augment = CropFlip(padding=0, flip=True)
    draws = augment.draw(32, stream(0))
    mirrored = torch.where(draws["mirror"][:, None, None, None], images.flip(3), images)
    assert torch.equal(augment(images, draws), mirrored)
    assert not torch.equal(mirrored, images)


def test_without_flip_nothing_is_mirrored_and_the_crops_are_the_same() -> None:
    still = CropFlip(padding=2, flip=False).draw(1000, stream(0))
    flipping = CropFlip(padding=2, flip=True).draw(1000, stream(0))
    assert not still["mirror"].any()
    assert torch.equal(still["top"], flipping["top"])
    assert torch.equal(still["left"], flipping["left"])

    images = random_images(16, 3, 6, 6)
    augment = CropFlip(padding=0, flip=False)
    assert torch.equal(augment(images, augment.draw(16, stream(0))), images)


def test_negative_padding_is_refused() -> None:
    with pytest.raises(SqakdError, match="padding=-1: expected a whole number of at least 0"):
        CropFlip(padding=-1, flip=True)


# several changes


def test_each_step_is_applied_in_order_with_its_own_draws() -> None:
    images = random_images(16, 3, 8, 8)
    first, second = CropFlip(padding=2, flip=True), CropFlip(padding=1, flip=False)
    both = Compose(steps={"first": first, "omitted": None, "second": second})
    generator = stream(0)
    draws = both.draw(16, stream(0))
    of_first, of_second = first.draw(16, generator), second.draw(16, generator)
    assert draws.keys() == {f"{step}.{name}" for step in ("first", "second") for name in ("top", "left", "mirror")}
    assert all(len(draw) == 16 for draw in draws.values())
    assert torch.equal(both(images, draws), second(first(images, of_first), of_second))


@pytest.mark.parametrize("name", ["crop", "crop.more"])
def test_names_of_steps_may_begin_with_the_name_of_another_step(name: str) -> None:
    steps: dict[str, Augment | None] = {
        "cro": CropFlip(padding=1, flip=False),
        name: CropFlip(padding=2, flip=True),
        "c": CropFlip(padding=1, flip=True),
    }
    images = random_images(8, 3, 6, 6)
    expected, generator = images, stream(3)
    for step in steps.values():
        assert step is not None
        expected = step(expected, step.draw(8, generator))
    composed = Compose(steps=steps)
    assert torch.equal(composed(images, composed.draw(8, stream(3))), expected)


def test_a_later_step_does_not_change_what_earlier_ones_draw() -> None:
    crop = ResizedCropFlip(size=6, area=[0.08, 1.0], ratio=[0.75, 1.3333], flip=True)
    colour = ColourJitter(brightness=0.2, contrast=0.2, saturation=0.2)
    alone, both = Compose(steps={"crop": crop}).draw(9, stream(0)), Compose(steps={"crop": crop, "colour": colour})
    draws = both.draw(9, stream(0))
    assert all(torch.equal(draw, draws[name]) for name, draw in alone.items())


# normalisation


def test_normalize_does_not_modify_float_images() -> None:
    images = random_images(5, 3, 7, 9)
    pixels, mean, std = images.float(), torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    assert torch.equal(normalize(pixels, mean, std), normalize(images, mean, std))
    assert torch.equal(pixels, images.float())


def test_normalize_equals_torchvision() -> None:
    images = random_images(5, 3, 7, 9)
    images[0, 0, 0, :2] = torch.tensor([0, 255], dtype=torch.uint8)
    before = images.clone()
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    expected = torch.stack([reference(np.asarray(image.permute(1, 2, 0))) for image in images])

    normalised = normalize(images, torch.tensor(mean), torch.tensor(std))

    assert normalised.dtype == torch.float32
    assert (normalised - expected).abs().max() < 2e-6
    assert torch.equal(images, before)

"""Colours of whole batches, compared with torchvision's functions on one image at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from sqakd.dataset.transforms.colour import ColourJitter
from sqakd.errors import SqakdError
from sqakd.randomness import stream

STRENGTHS = [(0.2, 0.2, 0.2), (0.9, 0.0, 0.0), (0.0, 0.9, 0.0), (0.0, 0.0, 0.9), (2.0, 2.0, 2.0)]


def make(strengths: tuple[float, float, float]) -> ColourJitter:
    return ColourJitter(**dict(zip(("brightness", "contrast", "saturation"), strengths, strict=True)))


def random_images() -> Tensor:
    images = torch.randint(0, 256, (12, 3, 9, 7), dtype=torch.uint8, generator=stream(0))
    images[0] = 0
    images[1] = 255
    images[2, 1:] = 0  # red only
    images[3] = images[3, :1]  # grey
    return images


def expected(image: Tensor, factors: list[float]) -> Tensor:
    changed: Tensor = F.adjust_brightness(image, factors[0])
    changed = F.adjust_contrast(changed, factors[1])
    return F.adjust_saturation(changed, factors[2])  # type: ignore[no-any-return]


@pytest.mark.parametrize("strengths", STRENGTHS)
def test_colours_equal_those_of_torchvision_with_the_same_factors(strengths: tuple[float, float, float]) -> None:
    images, jitter = random_images(), make(strengths)
    before = images.clone()
    draws = jitter.draw(len(images), stream(1))
    changed = jitter(images, draws)
    assert changed.dtype == torch.float32
    for i, image in enumerate(images):
        factors = [float(draws[name][i]) for name in ("brightness", "contrast", "saturation")]
        exact = expected(image.float() / 255, factors) * 255
        assert (changed[i] - exact).abs().max() < 0.01
        if max(strengths) < 1:  # torchvision truncates to uint8 after each of its three steps
            assert (changed[i] - expected(image, factors).float()).abs().max() < 4
    assert torch.equal(images, before)


def test_float_images_are_not_modified() -> None:
    images, jitter = random_images().float(), make((0.2, 0.2, 0.2))
    before, draws = images.clone(), jitter.draw(12, stream(0))
    assert torch.equal(jitter(images, draws), jitter(random_images(), draws))
    assert torch.equal(images, before)


def test_strength_zero_changes_nothing() -> None:
    images, jitter = random_images(), make((0.0, 0.0, 0.0))
    draws = jitter.draw(12, stream(0))
    assert all((draw == 1).all() for draw in draws.values())
    assert torch.equal(jitter(images, draws), images.float())


@pytest.mark.parametrize("strength", [0.2, 3.0])
def test_factors_are_uniform_and_independent(strength: float) -> None:
    n, low, high = 20_000, max(0.0, 1 - strength), 1 + strength
    draws = make((strength,) * 3).draw(n, stream(0))
    factors = torch.stack([draws[name] for name in ("brightness", "contrast", "saturation")]).double()
    assert factors.min() >= low
    assert factors.max() <= high
    deviation = (high - low) / 12**0.5
    assert (factors.mean(1) - (low + high) / 2).abs().max() < 5 * deviation / n**0.5
    assert (factors.std(1) / deviation - 1).abs().max() < 0.05
    assert torch.corrcoef(factors).fill_diagonal_(0).abs().max() < 5 / n**0.5
    again = make((strength,) * 3).draw(n, stream(0))
    assert all(torch.equal(again[name], draw) for name, draw in draws.items())


def test_negative_strength_is_refused() -> None:
    with pytest.raises(SqakdError, match=r"contrast=-0\.1: expected a number >= 0"):
        make((0.2, -0.1, 0.2))

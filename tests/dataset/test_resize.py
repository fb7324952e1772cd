"""Crops of whole batches compared with torchvision's crops of one image, and the distribution of the boxes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from sqakd.dataset.transforms.resize import ResizeCentreCrop, ResizedCropFlip, resample, resampling
from sqakd.errors import SqakdError
from sqakd.randomness import stream

SHAPES = [(64, 64, 224), (64, 64, 64), (40, 64, 24), (96, 80, 56), (1, 1, 3), (5, 2, 3)]


def make(size: int = 24, **changes: Any) -> ResizedCropFlip:
    arguments: dict[str, Any] = {"area": [0.08, 1.0], "ratio": [0.75, 4 / 3], "flip": True}
    return ResizedCropFlip(size=size, **arguments | changes)


def random_images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=stream(*shape))


def on_whole_pixels(draws: dict[str, Tensor], height: int, width: int) -> tuple[dict[str, Tensor], list[list[int]]]:
    """Move boxes to whole pixels; return them as shares of the sides and as top, left, height, width."""
    h = (draws["height"] * height).round().clamp(min=1)
    w = (draws["width"] * width).round().clamp(min=1)
    top = (draws["top"] * height).round().minimum(height - h)
    left = (draws["left"] * width).round().minimum(width - w)
    shares = {"top": top / height, "left": left / width, "height": h / height, "width": w / width}
    return draws | shares, torch.stack([top, left, h, w], 1).int().tolist()


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_crops_equal_those_of_torchvision_on_the_same_boxes(height: int, width: int, size: int) -> None:
    images = random_images(24, 3, height, width)
    before = images.clone()
    augment = make(size)
    draws, boxes = on_whole_pixels(augment.draw(24, stream(1)), height, width)
    assert draws["mirror"].any()
    assert not draws["mirror"].all()

    crops = augment(images, draws)

    assert crops.shape == (24, 3, size, size)
    enlarged = 0
    for crop, image, box, mirror in zip(crops, images, boxes, draws["mirror"], strict=True):
        crop = crop.flip(2) if mirror else crop
        exact = F.resized_crop(image.float(), *box, [size, size], antialias=True)
        assert (crop - exact).abs().max() < 0.02
        assert (crop.round() - F.resized_crop(image, *box, [size, size], antialias=True)).abs().max() <= 1
        if max(box[2:]) <= size:  # enlarged, so that antialiasing changes nothing
            enlarged += 1
            assert (crop - F.resized_crop(image.float(), *box, [size, size], antialias=False)).abs().max() < 0.02
    assert enlarged == 24 or height > size
    assert torch.equal(images, before)


def test_mirroring_is_exact() -> None:
    images = random_images(16, 3, 64, 64)
    augment = make(100)
    draws = augment.draw(16, stream(0))
    other = augment(images, draws | {"mirror": ~draws["mirror"]})
    assert torch.equal(augment(images, draws).flip(3), other)


def test_whole_image_in_its_own_size_is_unchanged() -> None:
    images = random_images(8, 3, 20, 20)
    augment = make(20, area=[1.0, 1.0], ratio=[1.0, 1.0], flip=False)
    assert torch.equal(augment(images, augment.draw(8, stream(0))), images.float())


def test_boxes_may_begin_and_end_between_pixels() -> None:
    """A ramp is interpolated linearly between its pixels and constant at the border."""
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    start, extent = torch.tensor([4.3]), torch.tensor([11.9])
    whole = resampling(torch.zeros(1), torch.tensor([32.0]), size=32, length=32)
    cut = resample(ramp, whole, resampling(start, extent, size=17, length=32))
    expected = 4.3 + (torch.arange(17) + 0.5) * 11.9 / 17 - 0.5
    assert torch.allclose(cut[0, 0], expected.clamp(4, 15).expand(32, 17), atol=1e-4)


@pytest.mark.parametrize("size", [1, 7, 50])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_weights_are_a_mean_of_the_pixels_inside_the_box(size: int, length: int) -> None:
    generator = stream(size, length)
    extent = torch.rand(500, generator=generator) * length
    start = torch.rand(500, generator=generator) * (length - extent)
    weights = resampling(start, extent, size=size, length=length)
    assert weights.shape == (500, size, length)
    assert torch.allclose(weights.sum(2), torch.ones(500, size), atol=1e-5)
    assert weights.min() >= 0
    place = torch.arange(length) + 0.5
    outside = (place < start[:, None] - 0.5 - 1e-5) | (place > (start + extent)[:, None] + 0.5 + 1e-5)
    assert weights.masked_select(outside[:, None]).eq(0).all()


def test_boxes_have_the_distribution_of_torchvision() -> None:
    """Compare quantiles of area, shape and place with those of RandomResizedCrop on a large image."""
    n, side = 4000, 1000
    draws = make().draw(n, stream(0))
    reference = v2.RandomResizedCrop(8, scale=(0.08, 1.0), ratio=(0.75, 4 / 3))
    image = torch.empty(3, side, side)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        boxes = [reference.make_params([image]) for _ in range(n)]
    theirs = {name: torch.tensor([box[name] / side for box in boxes]) for name in ("top", "left", "height", "width")}

    def features(boxes: dict[str, Tensor]) -> Tensor:
        height, width, top, left = (boxes[name] for name in ("height", "width", "top", "left"))
        return torch.stack([height * width, (width / height).log(), top, left, height, width])

    steps = torch.linspace(0.05, 0.95, 19)
    ours, expected = features(draws), features(theirs)
    for mine, other in zip(ours, expected, strict=True):
        below = (other[:, None] <= mine.quantile(steps)).double().mean(0)
        assert (below - steps).abs().max() < 5 * (0.25 * 2 / n) ** 0.5  # five standard deviations
    assert abs(int(draws["mirror"].sum()) - n / 2) < 5 * (n / 4) ** 0.5
    assert (torch.corrcoef(ours) - torch.corrcoef(expected)).abs().max() < 0.1


@pytest.mark.parametrize(
    ("area", "ratio"), [([0.08, 1.0], [0.75, 4 / 3]), ([0.9, 1.0], [2.0, 3.0]), ([0.9, 1.0], [0.2, 0.5])]
)
def test_boxes_lie_inside_and_have_the_ratio(area: list[float], ratio: list[float]) -> None:
    draws = make(area=area, ratio=ratio).draw(5000, stream(0))
    for start, extent in (("top", "height"), ("left", "width")):
        assert draws[start].min() >= 0
        assert (draws[start] + draws[extent]).max() <= 1 + 1e-6
        assert draws[extent].min() > 0
    shape = draws["width"] / draws["height"]
    assert shape.min() > ratio[0] - 1e-4
    assert shape.max() < ratio[1] + 1e-4
    if area[0] == 0.9:  # no such box fits: the largest box of an allowed ratio, in the middle
        nearest = 2.0 if ratio[0] == 2 else 0.5
        assert torch.allclose(shape, torch.full_like(shape, nearest))
        assert torch.allclose(draws["width"].maximum(draws["height"]), torch.ones(5000))
        assert torch.allclose(draws["top"] * 2 + draws["height"], torch.ones(5000))


def test_draws_are_a_function_of_the_stream() -> None:
    once, again, other = (make().draw(64, stream(seed, 3)) for seed in (0, 0, 1))
    for name in once:
        assert once[name].shape == (64,)
        assert once[name].device.type == "cpu"
        assert torch.equal(once[name], again[name])
        assert not torch.equal(once[name], other[name])
    assert not make(flip=False).draw(64, stream(0))["mirror"].any()


def test_parts_of_a_batch_are_changed_like_the_whole_batch() -> None:
    images, augment = random_images(10, 3, 64, 64), make(96)
    draws = augment.draw(10, stream(0))
    whole = augment(images, draws)
    parts = [augment(images[s], {k: v[s] for k, v in draws.items()}) for s in (slice(0, 3), slice(3, 10))]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": 2.5},
        {"area": [0.0, 1.0]},
        {"area": [0.5, 0.2]},
        {"area": [0.5, 1.5]},
        {"area": [0.5]},
        {"area": [None, 1.0]},
        {"ratio": [0.0, 1.0]},
        {"ratio": [2.0, 1.0]},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    ((name, _),) = wrong.items()
    with pytest.raises(SqakdError, match=f"^{name}=.*: expected"):
        make(**wrong)


# evaluation


@pytest.mark.parametrize(
    ("height", "width", "size", "margin"),
    [(64, 64, 224, 32), (64, 64, 32, 8), (50, 64, 40, 5), (64, 41, 100, 0), (300, 200, 56, 8), (64, 64, 64, 1)],
)
def test_evaluation_equals_torchvisions_resize_and_centre_crop(height: int, width: int, size: int, margin: int) -> None:
    images = random_images(4, 3, height, width)
    evaluated = ResizeCentreCrop(size=size, margin=margin)(images)
    if height == width == size:
        assert torch.equal(evaluated, images), "images of this size are unchanged"
        return
    resized = F.resize(images.float(), [size + margin], antialias=True)
    assert evaluated.shape == (4, 3, size, size)
    assert (evaluated - F.center_crop(resized, [size, size])).abs().max() < 0.02
    assert torch.equal(evaluated, ResizeCentreCrop(size=size, margin=margin)(images))


def test_evaluation_of_no_images_has_the_final_size() -> None:
    assert ResizeCentreCrop(size=224, margin=32)(random_images(0, 3, 64, 64)).shape == (0, 3, 224, 224)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": "a"}, {"margin": -1}, {"margin": 0.5}])
def test_wrong_options_of_evaluation_are_refused(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    arguments: dict[str, Any] = {"size": 8, "margin": 2}
    with pytest.raises(SqakdError, match=f"^{name}={value!r}: expected"):
        ResizeCentreCrop(**arguments | wrong)

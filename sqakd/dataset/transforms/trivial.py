r"""TrivialAugment: one random change per image, of a random strength.

Paper: Mueller, Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021
(https://arxiv.org/abs/2103.10158), algorithm 1 with its wide ranges. Each image gets one of 14 changes, at one of 31
strengths m = 0, 1/30 .. 1, with a random sign s if the change has two directions:

    nothing; shear by 0.99 s m, along rows or columns; shift, along rows or columns; rotate by 135 s m degrees
    blend with f = 1 + 0.99 s m: with black, with grey, with the mean grey, with a blurred copy
    keep 8 .. 2 bits of each pixel; invert pixels from 255 (1 - m) upwards; stretch the contrast; equalize

The whole batch is changed at once: all shears, shifts and rotations are one lookup of the nearest pixel, and all blends
are one formula with a factor for each image. Where ours differs: a shear keeps the image's centre in place, and a shift
is a share of the side rather than 32 pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from sqakd.dataset.transforms.augment import Augment
from sqakd.dataset.transforms.colour import grey
from sqakd.numbers import check_positive_share

CHANGES = (
    "nothing",
    "shear_x",
    "shear_y",
    "shift_x",
    "shift_y",
    "rotate",
    "brightness",
    "colour",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
LEVELS = 31
STRONGEST = 0.99  # largest shear, and largest distance of a blend's factor from 1
DEGREES = 135.0  # largest rotation
BITS_LOST = 6  # bits of a pixel that the strongest posterize removes


class TrivialAugment(Augment):
    """One random change per image.

    Args:
        strength: factor of all strengths; the paper's is 1.
        translate: largest shift, as a share of the image's side.

    Raises:
        SqakdError: if an argument is not above 0 and at most 1.
    """

    def __init__(self, *, strength: float, translate: float) -> None:
        check_positive_share("strength", strength)
        check_positive_share("translate", translate)
        self.strength, self.translate = strength, translate

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the number of the change in CHANGES, its strength 0 .. 1 and its sign -1 or 1."""
        change = torch.randint(len(CHANGES), (n,), generator=generator)
        level = torch.randint(LEVELS, (n,), generator=generator) / (LEVELS - 1)
        sign = 1 - 2 * torch.randint(2, (n,), generator=generator)
        return {"change": change, "level": level * self.strength, "sign": sign}

    def __call__(self, images: Tensor, draws: dict[str, Tensor]) -> Tensor:
        """Return the changed images, uint8 [N, 3, H, W]."""
        if images.dtype != torch.uint8:
            images = images.round().to(torch.uint8)
        change, level, sign = draws["change"], draws["level"], draws["sign"]
        is_a = {name: change == number for number, name in enumerate(CHANGES)}
        signed = level * sign
        images = moved(images, is_a, signed, self.translate)
        images = blended(images, is_a, 1 + STRONGEST * signed)
        return redrawn(images, is_a, level)


def moved(images: Tensor, is_a: dict[str, Tensor], signed: Tensor, translate: float) -> Tensor:
    """Return the images with those changes applied that move pixels: shear, shift and rotation.

    With x and y measured from the centre, the new pixel at (x, y) is the image's pixel nearest to
    (c x + a y + u, b x + c y + v), or black if that position is outside the image. Images of other changes have c = 1
    and a = b = u = v = 0.

    Args:
        images: [N, C, H, W].
        is_a: for each change, a mask of its images, [N].
        signed: strength with its sign, -1 .. 1, [N].
        translate: largest shift, as a share of the side.
    """
    n, channels, height, width = images.shape

    def amount(name: str, largest: float) -> Tensor:
        """Return the amount of one change for each image [N], 0 for the images of other changes."""
        return torch.where(is_a[name], largest * signed, 0.0)

    # An image has one change, so its matrix [[c, a], [b, c]] is that of a rotation, of one shear, or the identity.
    angle = amount("rotate", math.radians(DEGREES))
    cosine, sine = angle.cos()[:, None, None], angle.sin()
    a = (amount("shear_x", STRONGEST) - sine)[:, None, None]
    b = (amount("shear_y", STRONGEST) + sine)[:, None, None]
    shift_x = amount("shift_x", translate * width).round()[:, None, None]
    shift_y = amount("shift_y", translate * height).round()[:, None, None]
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    column = (cosine * x + a * y + shift_x + (width - 1) / 2).round().long()
    row = (b * x + cosine * y + shift_y + (height - 1) / 2).round().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).view(n, 1, -1)
    found = images.flatten(2).gather(2, pixel.expand(n, channels, -1)).view_as(images)
    return found * inside[:, None]


def blended(images: Tensor, is_a: dict[str, Tensor], factor: Tensor) -> Tensor:
    """Return f image + (1 - f) base, rounded to uint8, for the images whose change is a blend.

    Args:
        images: uint8 [N, 3, H, W].
        is_a: for each change, a mask of its images, [N].
        factor: the factor f, [N]; only read for the images that are blended.
    """
    real = images.float()
    bases = {
        "brightness": torch.zeros_like(real[:, :1]),
        "colour": grey(real),
        "contrast": grey(real.mean((2, 3), keepdim=True)),
        "sharpness": blurred(real),
    }
    base = real  # images of other changes are blended with themselves, which leaves them unchanged
    for name, other in bases.items():
        base = torch.where(is_a[name][:, None, None, None], other, base)
    return torch.lerp(base, real, factor[:, None, None, None]).round_().clamp_(0, 255).to(torch.uint8)


def blurred(images: Tensor) -> Tensor:
    """Return the images with each pixel replaced by a mean over its 3x3 neighbours, in which it counts five times.

    The result is rounded, and the pixels on the border stay. torchvision computes the same (`adjust_sharpness`), but
    copies the nine weights from the CPU in each call, and the CPU waits for the GPU until they have arrived.

    Args:
        images: float32 [N, 3, H, W], values 0 .. 255.
    """
    channels, height, width = images.shape[1:]
    if min(height, width) < 3:
        return images
    kernel = images.new_full((channels, 1, 3, 3), 1 / 13)
    kernel[:, :, 1, 1] = 5 / 13
    found = images.clone()
    found[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel, groups=channels).round_().clamp_(0, 255)
    return found


def stretched(images: Tensor) -> Tensor:
    """Return the images with the darkest pixel of each channel mapped to 0 and the lightest to 255.

    A channel of one value stays. torchvision computes the same (`autocontrast`), but with an index whose length depends
    on the pixels, and the CPU waits until the GPU has computed it.

    Args:
        images: uint8 [N, 3, H, W].
    """
    real = images.float()
    low, high = real.amin((2, 3), keepdim=True), real.amax((2, 3), keepdim=True)
    flat = low == high
    step = torch.where(flat, 1.0, (high - low) * (1 / 255))
    return (real - torch.where(flat, 0.0, low)).div_(step).clamp_(0, 255).to(torch.uint8)


def redrawn(images: Tensor, is_a: dict[str, Tensor], level: Tensor) -> Tensor:
    """Return the images with those changes applied that map pixel values: posterize to equalize.

    Args:
        images: uint8 [N, 3, H, W].
        is_a: for each change, a mask of its images, [N].
        level: strength 0 .. 1, [N].
    """
    level = level[:, None, None, None]
    kept = 256 - 2 ** (BITS_LOST * level).round().int()  # a mask of the high bits, e.g. 0b11111100 keeps six
    changed = {
        "posterize": images & kept.to(torch.uint8),
        "solarize": torch.where(images >= 255 * (1 - level), 255 - images, images),
        "autocontrast": stretched(images),
        "equalize": transforms.equalize(images),
    }
    for name, other in changed.items():
        images = torch.where(is_a[name][:, None, None, None], other, images)
    return images

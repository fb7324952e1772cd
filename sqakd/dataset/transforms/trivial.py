r"""TrivialAugment: each image gets one change, of a strength drawn anew each time.

Paper: Mueller, Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021
(https://arxiv.org/abs/2103.10158), algorithm 1 with its wide ranges. One of 14 changes, at one of 31
strengths m = 0, 1/30 .. 1 with a random sign s where a change has two directions:

    nothing; shear by 0.99 s m, along rows or columns; shift, along rows or columns; rotate by 135 s m degrees
    blend with f = 1 + 0.99 s m: with black, with grey, with the mean grey, with a blurred copy
    keep 8 .. 2 bits of each pixel; invert pixels from 255 (1 - m) upwards; stretch the contrast; equalize

The batch is changed at once: every shear, shift and rotation is one lookup of the nearest pixel, every blend one
formula with a number per image. Where ours differs: shears leave the image's middle where it is, and a shift is a share
of the side rather than 32 pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from sqakd.dataset.transforms.augment import Augment
from sqakd.dataset.transforms.colour import grey
from sqakd.numbers import is_number

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
STRONGEST = 0.99  # shear, and distance of a blend's factor from 1
DEGREES = 135.0
BITS_LOST = 6


class TrivialAugment(Augment):
    """One change per image.

    Args:
        strength: all strengths are multiplied by it; 1 for the paper's.
        translate: largest shift, as a share of the image's side.
    """

    def __init__(self, *, strength: float, translate: float) -> None:
        for name, value in (("strength", strength), ("translate", translate)):
            if not is_number(value) or not 0 < value <= 1:
                raise ValueError(f"plus.trivial.{name}={value!r}: expected a number above 0 and at most 1")
        self.strength, self.translate = strength, translate

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        change = torch.randint(len(CHANGES), (n,), generator=generator)
        level = torch.randint(LEVELS, (n,), generator=generator) / (LEVELS - 1)
        sign = 1 - 2 * torch.randint(2, (n,), generator=generator)
        return {"change": change, "level": level * self.strength, "sign": sign}

    def __call__(self, images: Tensor, draws: dict[str, Tensor]) -> Tensor:
        """uint8 [N, 3, H, W]."""
        if images.dtype != torch.uint8:
            images = images.round().to(torch.uint8)
        change, level, sign = draws["change"], draws["level"], draws["sign"]
        is_a = {name: change == number for number, name in enumerate(CHANGES)}
        signed = level * sign
        images = moved(images, is_a, signed, self.translate)
        images = blended(images, is_a, 1 + STRONGEST * signed)
        return redrawn(images, is_a, level)


def moved(images: Tensor, is_a: dict[str, Tensor], signed: Tensor, translate: float) -> Tensor:
    """Sheared, shifted and rotated images; each pixel is the nearest one at its origin, black if that is outside.

    With x and y measured from the middle, the pixel at (x, y) comes from (c x + a y + u, b x + c y + v).

    Args:
        images: [N, C, H, W].
        is_a: by change, which images it is for, [N].
        signed: strength with its sign, -1 .. 1, [N].
        translate: largest shift, as a share of the side.
    """
    n, channels, height, width = images.shape

    def where(name: str, most: float) -> Tensor:
        return torch.where(is_a[name], most * signed, 0.0)

    angle = where("rotate", math.radians(DEGREES))
    straight, turn = angle.cos(), angle.sin()
    across = (where("shear_x", STRONGEST) - turn)[:, None, None]
    down = (where("shear_y", STRONGEST) + turn)[:, None, None]
    straight = straight[:, None, None]
    shift_x = where("shift_x", translate * width).round()[:, None, None]
    shift_y = where("shift_y", translate * height).round()[:, None, None]
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    column = (straight * x + across * y + shift_x + (width - 1) / 2).round().long()
    row = (down * x + straight * y + shift_y + (height - 1) / 2).round().long()
    known = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).view(n, 1, -1)
    found = images.flatten(2).gather(2, pixel.expand(n, channels, -1)).view_as(images)
    return found * known[:, None]


def blended(images: Tensor, is_a: dict[str, Tensor], factor: Tensor) -> Tensor:
    """f image + (1 - f) base, rounded to uint8; f = 1 changes nothing.

    Args:
        images: uint8 [N, 3, H, W].
        is_a: by change, which images it is for, [N].
        factor: f of those that are blended, [N].
    """
    real = images.float()
    bases = {
        "brightness": torch.zeros_like(real[:, :1]),
        "colour": grey(real),
        "contrast": grey(real.mean((2, 3), keepdim=True)),
        "sharpness": transforms.adjust_sharpness(images, 0.0).float(),
    }
    base = real
    for name, other in bases.items():
        base = torch.where(is_a[name][:, None, None, None], other, base)
    return torch.lerp(base, real, factor[:, None, None, None]).round_().clamp_(0, 255).to(torch.uint8)


def redrawn(images: Tensor, is_a: dict[str, Tensor], level: Tensor) -> Tensor:
    """Images with other values for the same pixels.

    Args:
        images: uint8 [N, 3, H, W].
        is_a: by change, which images it is for, [N].
        level: strength 0 .. 1, [N].
    """
    level = level[:, None, None, None]
    kept = 256 - 2 ** (BITS_LOST * level).round().int()
    changed = {
        "posterize": images & kept.to(torch.uint8),
        "solarize": torch.where(images >= 255 * (1 - level), 255 - images, images),
        "autocontrast": transforms.autocontrast(images),
        "equalize": transforms.equalize(images),
    }
    for name, other in changed.items():
        images = torch.where(is_a[name][:, None, None, None], other, images)
    return images

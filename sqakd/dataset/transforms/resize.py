"""Crop a box out of each image and bring it to one size: two matrix products for a whole batch.

    out = R @ image @ C^T,   R[i, j] ~ tri((j + 1/2 - y_i) / max(1, s)),   y_i = top + (i + 1/2) s,   s = height / size

tri(x) = max(0, 1 - |x|), each row of R sums to one, only pixels whose centre lies in the box count, and C is R for
columns. Enlarging, this is bilinear interpolation; shrinking (s > 1), the triangle covers s pixels on each side instead
of one, so nothing is aliased. Both are what torchvision's `resized_crop` computes with antialias=True, one image at a
time; boxes may also begin and end between pixels here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sqakd.dataset.transforms.augment import Augment

ATTEMPTS = 10


def resampling(start: Tensor, extent: Tensor, *, size: int, length: int) -> Tensor:
    """Weights [N, size, length] that take a stretch of `length` pixels to `size` pixels.

    Args:
        start: where the stretch begins, in pixels, [N].
        extent: how long it is, in pixels, [N].
        size: pixels afterwards.
        length: pixels of the whole image.
    """
    scale = extent / size
    pixel = torch.arange(length, device=start.device)
    target = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * scale[:, None]
    distance = (pixel + 0.5 - target[:, :, None]).abs_()
    weights = distance.div_(scale.clamp(min=1)[:, None, None]).neg_().add_(1).clamp_(min=0)
    middle = (start + extent / 2).floor()  # a box smaller than a pixel may hold no centre
    first = (start - 0.5).ceil().minimum(middle)
    last = (start + extent - 0.5).floor().maximum(middle)
    weights *= ((pixel >= first[:, None]) & (pixel <= last[:, None]))[:, None]
    return weights.div_(weights.sum(2, keepdim=True))


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Float32 [N, C, height, width], values 0 .. 255 as before.

    Args:
        images: [N, C, H, W].
        rows: weights [N or 1, height, H].
        columns: weights [N or 1, width, W].
    """
    narrow = images.float() @ columns.transpose(1, 2)[:, None]  # columns first: the larger product is then half done
    return rows[:, None] @ narrow


class ResizedCropFlip(Augment):
    """A box of random area, shape and place, brought to `size` x `size`; half of them mirrored.

    As torchvision's RandomResizedCrop, except that boxes are not rounded to whole pixels.

    Args:
        size: side of the result, in pixels.
        area: of the box, smallest and largest, as a share of the image's.
        ratio: of the box's width to its height, smallest and largest, relative to the image's; logarithms are uniform.
        flip: whether to mirror left and right with probability one half.
    """

    def __init__(self, *, size: int, area: Sequence[float], ratio: Sequence[float], flip: bool) -> None:
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size={size!r} of a resized crop: expected a whole number of pixels")
        if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"area={list(area)} of a resized crop: expected two shares of the image, as [0.08, 1.0]")
        if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio={list(ratio)} of a resized crop: expected two numbers, as [0.75, 1.3333]")
        self.size, self.area, self.ratio, self.flip = size, list(area), list(ratio), flip

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Boxes as shares of the image's sides, and whether to mirror."""
        area = torch.rand(n, ATTEMPTS, generator=generator) * (self.area[1] - self.area[0]) + self.area[0]
        low, high = (math.log(ratio) for ratio in self.ratio)
        ratio = (torch.rand(n, ATTEMPTS, generator=generator) * (high - low) + low).exp()
        place = torch.rand(2, n, generator=generator)
        width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
        fits = (width <= 1) & (height <= 1)
        chosen = fits.int().argmax(1, keepdim=True)  # the first that fits
        found = fits.any(1)
        nearest = min(max(1.0, self.ratio[0]), self.ratio[1])  # none fits: the largest box, in the middle
        width = torch.where(found, width.gather(1, chosen)[:, 0], min(1.0, nearest))
        height = torch.where(found, height.gather(1, chosen)[:, 0], min(1.0, 1 / nearest))
        top, left = torch.where(found, place, 0.5)
        return {
            "top": top * (1 - height),
            "left": left * (1 - width),
            "height": height,
            "width": width,
            "mirror": (torch.rand(n, generator=generator) < 0.5) & self.flip,
        }

    def __call__(self, images: Tensor, draws: dict[str, Tensor]) -> Tensor:
        height, width = images.shape[2:]
        rows = resampling(draws["top"] * height, draws["height"] * height, size=self.size, length=height)
        columns = resampling(draws["left"] * width, draws["width"] * width, size=self.size, length=width)
        columns = torch.where(draws["mirror"][:, None, None], columns.flip(1), columns)
        return resample(images, rows, columns)


class ResizeCentreCrop:
    """For evaluation: shorter side to `size + margin`, then the `size` x `size` pixels in the middle.

    Images that have this size already stay as they are.

    Args:
        size: side of the result, in pixels.
        margin: what is cut off, both sides together, in pixels.
    """

    def __init__(self, *, size: int, margin: int) -> None:
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"dataset.evaluate.size={size!r}: expected a whole number of pixels")
        if not isinstance(margin, int) or margin < 0:
            raise ValueError(f"dataset.evaluate.margin={margin!r}: expected a whole number of pixels >= 0")
        self.size, self.margin = size, margin

    def __call__(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, size, size], values 0 .. 255."""
        height, width = images.shape[2:]
        if height == width == self.size:
            return images
        rows, columns = (self._weights(n, min(height, width), images.device) for n in (height, width))
        return resample(images, rows, columns)

    def _weights(self, length: int, shorter: int, device: torch.device) -> Tensor:
        resized = (self.size + self.margin) * length // shorter
        start, extent = torch.zeros(1, device=device), torch.full((1,), float(length), device=device)
        first = round((resized - self.size) / 2)
        return resampling(start, extent, size=resized, length=length)[:, first : first + self.size]

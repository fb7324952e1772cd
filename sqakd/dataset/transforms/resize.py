"""Crops of each image, resized to one size by two matrix products for a whole batch.

    out = R @ image @ C^T,   R[i, j] ~ tri((j + 1/2 - y_i) / max(1, s)),   y_i = top + (i + 1/2) s,   s = height / size

tri(x) = max(0, 1 - |x|). Each row of R sums to one, only pixels whose centre lies in the box have a weight, and C is
the same matrix for columns. For s <= 1 (enlarging) this is bilinear interpolation. For s > 1 (shrinking) the triangle
covers s pixels on each side instead of one, which prevents aliasing. torchvision's `resized_crop` with antialias=True
computes the same for one image at a time; here a box may also begin and end between pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sqakd.dataset.checks import check_side
from sqakd.dataset.transforms.augment import Augment
from sqakd.errors import SqakdError
from sqakd.numbers import is_number

ATTEMPTS = 10  # random boxes drawn per image, of which the first that fits into the image is used, as in torchvision


def size_text(height: int, width: int) -> str:
    """Return the size of an image as text for a message.

    Example:
        >>> size_text(32, 24)
        '32x24'
    """
    return f"{height}x{width}"


def resampling(start: Tensor, extent: Tensor, *, size: int, length: int) -> Tensor:
    """Return weights [N, size, length] that resample a section of an image along one axis.

    Args:
        start: beginning of the section, in pixels, [N].
        extent: length of the section, in pixels, [N].
        size: number of pixels of the result.
        length: number of pixels of the whole image along this axis.
    """
    scale = extent / size
    pixel = torch.arange(length, device=start.device)
    # Centre of each pixel of the result, as a position in the image [N, size].
    target = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * scale[:, None]
    # The triangle filter; its half width is one pixel of the image, or of the result if that is larger.
    distance = (pixel + 0.5 - target[:, :, None]).abs_()
    weights = distance.div_(scale.clamp(min=1)[:, None, None]).neg_().add_(1).clamp_(min=0)
    # Pixels whose centre lies in the box. A box smaller than a pixel may contain no centre: it takes the pixel in which
    # its own centre lies.
    middle = (start + extent / 2).floor()
    first = (start - 0.5).ceil().minimum(middle)
    last = (start + extent - 0.5).floor().maximum(middle)
    weights *= ((pixel >= first[:, None]) & (pixel <= last[:, None]))[:, None]
    return weights.div_(weights.sum(2, keepdim=True))


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return resampled images, float32 [N, C, height, width], values 0 .. 255.

    Args:
        images: [N, C, H, W], values 0 .. 255.
        rows: weights [N or 1, height, H].
        columns: weights [N or 1, width, W].
    """
    narrow = images.float() @ columns.transpose(1, 2)[:, None]  # columns first, which makes the second product smaller
    return rows[:, None] @ narrow


class ResizedCropFlip(Augment):
    """A crop of random area, shape and place, resized to `size` x `size`, and mirroring of half of the images.

    Equal to torchvision's RandomResizedCrop, except that boxes are not rounded to whole pixels.

    Args:
        size: side of the result, in pixels.
        area: smallest and largest area of the box, as shares of the image's area.
        ratio: smallest and largest ratio of the box's width to its height, relative to the image's ratio; its logarithm
            is uniform.
        flip: whether to mirror left and right with probability one half.

    Raises:
        SqakdError: if an argument has no such value.
    """

    def __init__(self, *, size: int, area: Sequence[float], ratio: Sequence[float], flip: bool) -> None:
        check_side("size", size)
        if not _is_interval(area) or area[1] > 1:
            raise SqakdError(f"area={area}: expected two shares of the image in ascending order, e.g. [0.08, 1.0]")
        if not _is_interval(ratio):
            raise SqakdError(f"ratio={ratio}: expected two numbers above 0 in ascending order, e.g. [0.75, 1.3333]")
        self.size, self.area, self.ratio, self.flip = size, list(area), list(ratio), flip

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return boxes as shares of the image's sides, and a mask of the images to mirror."""
        area = torch.rand(n, ATTEMPTS, generator=generator) * (self.area[1] - self.area[0]) + self.area[0]
        low, high = (math.log(ratio) for ratio in self.ratio)
        ratio = (torch.rand(n, ATTEMPTS, generator=generator) * (high - low) + low).exp()
        place = torch.rand(2, n, generator=generator)
        width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
        fits = (width <= 1) & (height <= 1)
        chosen = fits.int().argmax(1, keepdim=True)  # the first box that fits
        found = fits.any(1)
        # If none fits: the largest box in the middle whose ratio is the nearest allowed one to the image's.
        nearest = min(max(1.0, self.ratio[0]), self.ratio[1])
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


def _is_interval(bounds: Sequence[float]) -> bool:
    """Return whether a sequence is two finite numbers above 0 in ascending order."""
    return len(bounds) == 2 and all(is_number(bound) for bound in bounds) and 0 < bounds[0] <= bounds[1] < math.inf


class ResizeCentreCrop:
    """The preparation for evaluation: the shorter side is resized to `size + margin`, then the centre is cropped.

    Images that are `size` x `size` already stay unchanged.

    Args:
        size: side of the result, in pixels.
        margin: pixels that the crop removes, both sides together.

    Raises:
        SqakdError: if an argument is not a whole number of pixels.
    """

    def __init__(self, *, size: int, margin: int) -> None:
        check_side("size", size)
        check_side("margin", margin, minimum=0)
        self.size, self.margin = size, margin

    def __call__(self, images: Tensor) -> Tensor:
        """Return the prepared images, [N, C, H, W] -> [N, C, size, size], values 0 .. 255."""
        height, width = images.shape[2:]
        if height == width == self.size:
            return images
        rows, columns = (self._weights(n, min(height, width), images.device) for n in (height, width))
        return resample(images, rows, columns)

    def _weights(self, length: int, shorter: int, device: torch.device) -> Tensor:
        """Return weights [1, size, length] that resize and crop along an axis of `length` pixels.

        Args:
            length: pixels of the image along this axis.
            shorter: pixels of the image's shorter side.
            device: device of the images.
        """
        resized = (self.size + self.margin) * length // shorter
        start, extent = torch.zeros(1, device=device), torch.full((1,), float(length), device=device)
        first = round((resized - self.size) / 2)
        return resampling(start, extent, size=resized, length=length)[:, first : first + self.size]

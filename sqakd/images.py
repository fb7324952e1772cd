"""The one reader of image files: training and deployment see the same pixels.

Data sets and `sqakd.predict` both read files with this module. It needs only numpy and pillow, so that an exported
model runs on machines without torch.

An image of any format and mode becomes RGB with 8 bits: upright (the EXIF orientation is applied, as image viewers
do), 16-bit grey scaled to 8 bits, transparency over black, and the first frame of an animation.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

# Of the formats that every pillow decodes. `sqakd.image_files` decides about the others.
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"),
    *(".pbm", ".pnm"),
}
# Increased whenever the pixels of some file change. Decoded images of another version are not used again.
VERSION = 2
# Pixels of one image, pillow's own limit: a small file can claim to contain a picture that fills the memory.
MOST_PIXELS = 178_956_970
_ORIENTATION = 0x0112  # EXIF tag
# The change that makes an image upright, by its EXIF orientation. 1 is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """A file that is not an intact image. The message is the reason, in one line and without the file's name."""


def read_rgb(file: Path | BinaryIO) -> Image.Image:
    """Return an image of any format and mode as upright RGB: transparency over black, 16 bits scaled to 8.

    Raises:
        ImageError: if the file is not an intact image.
    """
    try:
        # Pillow gets an open file, never a path: with a path it maps uncompressed TIFF files into memory, with width
        # and height exchanged if the orientation is 5 to 8, which scrambles the pixels (pillow 13.0).
        with _opened(file) as stream, Image.open(stream) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ImageError(_too_large(image.width, image.height))
            # Before the orientation is read: some formats store it after the pixels, and TIFF is turned by pillow.
            image.load()
            upright = _UPRIGHT.get(_orientation(image))
            rgb = _to_rgb(image)
            return rgb if upright is None else rgb.transpose(upright)
    except ImageError:
        raise
    except Exception as error:  # for damaged files pillow's decoders raise errors of many classes
        raise ImageError(_reason(error)) from error


def fit(image: Image.Image, height: int, width: int, margin: int = 0) -> Image.Image:
    """Resize an image so that it just covers `height` x `width` and `margin` more pixels, and crop the centre.

    Pretrained networks of torchvision expect a shorter side of 256 and a crop of 224, so a margin of 32.
    """
    covered = ImageOps.fit(image, (width + margin, height + margin), method=Image.Resampling.BILINEAR)
    start = round(margin / 2)
    return covered.crop((start, start, start + width, start + height)) if margin else covered


def channels_first(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of an RGB image as an array [3, height, width]."""
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The way from an image file of any size to the pixels that a network gets in evaluation.

    Attributes:
        size: height and width of the network's input.
        stored: height and width at which the data set keeps its images; None if unknown. An image is brought to this
            size first, because the network has only seen images that were.
        margin: pixels that the centre crop of the evaluation removes, both sides together.
        stored_margin: pixels that the centre crop removes when the data set stores an image.
    """

    size: tuple[int, int]
    stored: tuple[int, int] | None
    margin: int
    stored_margin: int = 0

    def __call__(self, file: Path | BinaryIO) -> NDArray[np.uint8]:
        """Return the pixels [3, height, width] of an image file.

        Raises:
            ImageError: if the file is not an intact image.
        """
        image = read_rgb(file)
        if self.stored is not None:
            image = fit(image, *self.stored, self.stored_margin)
        if self.stored != self.size:  # images stored at the network's size are neither resized again nor cropped
            image = fit(image, *self.size, self.margin)
        return channels_first(image)


def normalize(pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Return (pixel / 255 - mean) / std for pixels [N, 3, H, W], with the same rounding as the data sets' images."""
    means, spreads = np.array(mean, np.float32), np.array(std, np.float32)
    factor, shift = np.float32(1) / (np.float32(255) * spreads), -means / spreads
    result: NDArray[np.float32] = pixels.astype(np.float32) * factor[:, None, None] + shift[:, None, None]
    return result


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey values [N, 1, H, W] of pixels [N, 3, H, W], as ITU-R BT.601 weighs the colours.

    Grey pixels keep their value.

    Example:
        >>> luma(np.array([[[[7, 255]], [[7, 0]], [[7, 0]]]], np.uint8)).tolist()
        [[[[7, 76]]]]
    """
    weights = np.array([19595, 38470, 7471], np.uint32)  # they add up to 2^16
    weighted = (pixels.astype(np.uint32) * weights[:, None, None]).sum(axis=1, keepdims=True)
    grey: NDArray[np.uint8] = ((weighted + 2**15) >> 16).astype(np.uint8)
    return grey


def _opened(file: Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    return file.open("rb") if isinstance(file, Path) else nullcontext(file)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded image, 1 (upright) if there is none."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block raises errors of many classes, and the pixels are still intact
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # grey with 16 bits: convert() would clip the values at 255
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        over_black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        over_black.alpha_composite(image.convert("RGBA"))
        return over_black.convert("RGB")
    return image.convert("RGB")


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale pixels from 0 .. 65535 to 0 .. 255."""
    return (pixels.astype(np.float32) / 257).round().clip(0, 255).astype(np.uint8)


def _too_large(width: int, height: int) -> str:
    return f"{width}x{height} pixels; at most {MOST_PIXELS} pixels are read"


def _reason(error: Exception) -> str:
    """Return the reason why a file cannot be read, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MOST_PIXELS} pixels"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).splitlines()), type(error).__name__)

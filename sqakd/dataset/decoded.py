"""Images decoded once into one uint8 file that later runs map into memory, whatever they were stored as.

Two files in the cache: the pixels, and which of the images could be read. Both appear whole or not at all, under a name
made of everything that decides what is in them; of many processes that want them at the same moment one does the work.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from sqakd.dataset.errors import DataError

T = TypeVar("T")
# What opening and decoding a file that is no intact image may raise.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
CHUNK = 2048  # decoded images that may wait to be written


class Decoder:
    """Turns a list of images into a mapped tensor.

    Args:
        cache: folder of the decoded images.
        unreadable: "refuse" stops at files that are no images, "skip" leaves them out and says how many.
    """

    def __init__(self, *, cache: str, unreadable: str) -> None:
        if unreadable not in ("refuse", "skip"):
            raise DataError(f"dataset.unreadable={unreadable!r}: expected refuse or skip")
        self.cache, self.unreadable = Path(cache), unreadable

    def decode(
        self,
        items: Sequence[T],
        read: Callable[[T], NDArray[np.uint8] | str],
        *,
        shape: tuple[int, int, int],
        facts: object,
    ) -> tuple[list[T], Tensor]:
        """Items that could be read, and their pixels, uint8 [N, *shape] mapped from the cache.

        Args:
            items: what to decode, in this order.
            read: pixels of one item, or a sentence if it is no image; called from many threads.
            shape: channels, height, width.
            facts: what the pixels depend on, as plain data: names, lengths, times, the size they are brought to.
        """
        key = hashlib.blake2b(json.dumps([self.unreadable, facts]).encode(), digest_size=12).hexdigest()
        pixels, index = self.cache / f"{key}.uint8", self.cache / f"{key}.json"
        length = math.prod(shape)
        try:
            if not _complete(pixels, index, length):
                self.cache.mkdir(parents=True, exist_ok=True)
                with FileLock(self.cache / f"{key}.lock"):
                    if not _complete(pixels, index, length):
                        self._write(items, read, pixels, index)
        except OSError as error:
            raise DataError(f"cannot write decoded images to dataset.cache={self.cache}: {error}") from error
        kept = [items[i] for i in json.loads(index.read_text())]
        return kept, mapped(pixels, (len(kept), *shape))

    def _write(
        self, items: Sequence[T], read: Callable[[T], NDArray[np.uint8] | str], pixels: Path, index: Path
    ) -> None:
        part = pixels.with_suffix(f".part{os.getpid()}")
        try:
            with part.open("wb") as out:
                kept, bad = _decode_into(out, items, read)
            if (bad and self.unreadable == "refuse") or not kept:
                raise DataError(
                    f"{len(bad)} of {len(items)} files are no readable images: {some(bad)}; remove them"
                    + (", or type dataset.unreadable=skip" if self.unreadable == "refuse" else "")
                )
            if bad:
                tqdm.write(f"left out {len(bad)} of {len(items)} files that are no readable images: {some(bad)}")
            part.replace(pixels)
            part.write_text(json.dumps(kept))
            part.replace(index)  # last, because its existence says that the pixels are complete
        finally:
            part.unlink(missing_ok=True)


def mapped(pixels: Path, shape: tuple[int, ...]) -> Tensor:
    """A file of uint8 as a tensor that is read page by page; writing to the tensor does not change the file."""
    return torch.from_file(str(pixels), shared=False, size=math.prod(shape), dtype=torch.uint8).view(shape)


def read_rgb(file: Path | BinaryIO) -> Image.Image:
    """An image of any format and mode as RGB: transparency over black, 16 bits scaled to 8.

    Raises:
        UNREADABLE: if it is no intact image.
    """
    with Image.open(file) as image:
        if image.mode.startswith("I"):  # grey with 16 bits, which convert() would cut off at 255
            return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
        if image.has_transparency_data:
            over_black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            over_black.alpha_composite(image.convert("RGBA"))
            return over_black.convert("RGB")
        return image.convert("RGB")


def channels_first(image: Image.Image) -> NDArray[np.uint8]:
    """RGB image -> [3, height, width]."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def some(names: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _complete(pixels: Path, index: Path, length: int) -> bool:
    """Whether both files are whole; after a loss of power they may be there but empty."""
    try:
        images = len(json.loads(index.read_text()))
        return pixels.stat().st_size == images * length
    except (FileNotFoundError, ValueError):
        return False


def _decode_into(
    out: BinaryIO, items: Sequence[T], read: Callable[[T], NDArray[np.uint8] | str]
) -> tuple[list[int], list[str]]:
    """Positions of the items whose pixels were written, and a sentence for each other one."""
    kept, bad = [], []
    with ThreadPoolExecutor() as pool, tqdm(total=len(items), desc="decoding", unit="image", disable=None) as bar:
        for start in range(0, len(items), CHUNK):
            for i, image in enumerate(pool.map(read, items[start : start + CHUNK]), start):
                if isinstance(image, str):
                    bad.append(image)
                else:
                    out.write(image.tobytes())
                    kept.append(i)
                bar.update()
    return kept, bad


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """0 .. 65535 -> 0 .. 255."""
    return (pixels.astype(np.float32) / 257).round().clip(0, 255).astype(np.uint8)

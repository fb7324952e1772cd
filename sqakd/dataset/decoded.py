"""Images of any format, decoded once into a uint8 file that later runs map into memory.

The cache holds two files per list of images: the pixels, and the positions of the images that could be read. Both
appear whole or not at all. Their name is a hash of everything that determines their content. If many processes want the
same images concurrently, one process decodes them and the others wait.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sqakd.dataset.errors import DataError
from sqakd.errors import some
from sqakd.files import remove_abandoned, replacing, write_text
from sqakd.images import VERSION, ImageError

T = TypeVar("T")
# Errors that reading and decoding a file may raise if the file or its archive is damaged.
UNREADABLE = (ImageError, OSError, ValueError, zlib.error, zipfile.BadZipFile)
UNREADABLE_FILE = "not a readable image"  # reason why a file is left out
CHUNK = 2048  # decoded images held in memory before they are written


class Decoder:
    """A decoder that turns a list of images into a tensor mapped from a cache file.

    Args:
        cache: folder of the decoded images.
        unreadable: "refuse" raises an error for files that are not images, "skip" omits them and reports their number.

    Raises:
        DataError: if `unreadable` is neither.
    """

    def __init__(self, *, cache: str, unreadable: str) -> None:
        if unreadable not in ("refuse", "skip"):
            raise DataError(f"unreadable={unreadable!r}: expected refuse or skip")
        self.cache, self.unreadable = Path(cache), unreadable

    def decode(
        self,
        items: Sequence[T],
        read: Callable[[T], NDArray[np.uint8] | str],
        *,
        shape: tuple[int, int, int],
        facts: object,
        group: Callable[[T], str] | None = None,
    ) -> tuple[list[T], Tensor]:
        """Return the items that could be read, and their pixels as uint8 [N, *shape], mapped from the cache.

        Args:
            items: images to decode, in this order.
            read: function that returns the pixels of one item, or a description of the item if it is not an image;
                called from many threads.
            shape: channels, height, width of the pixels of one item.
            facts: everything that the pixels depend on, as plain data: names, lengths, times, the resized size.
            group: function that returns the class of an item; None for images without labels.

        Raises:
            DataError: if the cache cannot be written, if no item or none of a class can be read, or if an item cannot
                be read and `unreadable` is "refuse".
        """
        key = hashlib.blake2b(json.dumps([VERSION, self.unreadable, facts]).encode(), digest_size=12).hexdigest()
        pixels, index = self.cache / f"{key}.uint8", self.cache / f"{key}.json"
        length = math.prod(shape)
        try:
            if not _complete(pixels, index, length):
                self.cache.mkdir(parents=True, exist_ok=True)
                with FileLock(self.cache / f"{key}.lock"):
                    if not _complete(pixels, index, length):
                        self._write(items, read, pixels, index)
        except OSError as error:
            raise DataError(f"cannot write decoded images to {self.cache}: {error}", topic="data.cache") from error
        kept = [items[i] for i in json.loads(index.read_text())]
        if group is not None:
            emptied = {group(item) for item in items} - {group(item) for item in kept}
            if emptied:
                lost = [str(item) for item in items if group(item) in emptied]
                raise DataError(
                    f"no image of the class(es) {some(sorted(emptied))} can be read: {some(lost)}", topic="data.emptied"
                )
        return kept, mapped(pixels, (len(kept), *shape))

    def _write(
        self, items: Sequence[T], read: Callable[[T], NDArray[np.uint8] | str], pixels: Path, index: Path
    ) -> None:
        """Decode all items into the two files of the cache."""
        remove_abandoned(self.cache)  # of other data sets too, because these files are large
        with replacing(pixels) as temporary:
            with temporary.open("wb") as out:
                kept, bad = _decode_into(out, items, read)
            found = f"{len(bad)} of {len(items)} files are not readable images: {some(bad)}"
            if bad and self.unreadable == "refuse":
                raise DataError(found, topic="data.unreadable")
            if not kept:
                raise DataError(found)
            if bad:
                tqdm.write(f"omitted {len(bad)} of {len(items)} files that are not readable images: {some(bad)}")
        write_text(index, json.dumps(kept))  # last, because its existence means that the pixels are complete


def mapped(pixels: Path, shape: tuple[int, ...]) -> Tensor:
    """Return a file of uint8 values as a tensor that is read page by page.

    Writing to the tensor does not change the file.
    """
    return torch.from_file(str(pixels), shared=False, size=math.prod(shape), dtype=torch.uint8).view(shape)


def _complete(pixels: Path, index: Path, length: int) -> bool:
    """Return whether both files are whole. After a loss of power they may exist but be empty.

    Args:
        pixels: the file of pixels.
        index: the file of positions.
        length: bytes of one image.
    """
    try:
        images = len(json.loads(index.read_text()))
        return pixels.stat().st_size == images * length
    except (FileNotFoundError, ValueError):
        return False


def _decode_into(
    out: BinaryIO, items: Sequence[T], read: Callable[[T], NDArray[np.uint8] | str]
) -> tuple[list[int], list[str]]:
    """Write the pixels of the items; return the positions of those written, and descriptions of the others."""
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

"""The rows of the paper with other images: `dataset._target_=small_digits.SmallDigits` keeps all else of a data set."""

from __future__ import annotations

from typing import Any

from sqakd.dataset.digits import Digits


class SmallDigits(Digits):
    """The embedded digits at 32x32, whatever data set the configuration describes.

    Args:
        image_size: ignored, as are all other arguments that only the described data set has.
        **common: see `ImageDataModule`.
    """

    def __init__(self, *, image_size: int = 32, **common: Any) -> None:
        for key in ("root", "download", "cache", "unreadable"):
            common.pop(key, None)
        super().__init__(image_size=32, **common)

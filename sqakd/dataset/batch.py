"""One batch, as every data set yields it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Images with their position in the data set, and their label where there is one.

    Attributes:
        image: [N, 3, H, W]; uint8 from the loader, normalised float32 once it is on the training device.
        label: [N] int64 class indices, or None for unlabelled images.
        index: [N] int64, position of each image in the data set.
        draws: this batch's random numbers for the augmentation, each [N]; empty in evaluation.
    """

    image: Tensor
    label: Tensor | None
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    draws: dict[str, Tensor]

"""The batch that every data set yields."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Images with their position in the data set, and with labels if the data set has them.

    Attributes:
        image: [N, 3, H, W]; uint8 from the loader, normalised float32 once the batch is on the training device.
        label: [N] int64 class indices, or None for unlabelled images.
        index: [N] int64, position of each image in the data set.
        draws: random numbers for the augmentation of this batch, each [N]; empty in evaluation.
    """

    image: Tensor
    label: Tensor | None
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    draws: dict[str, Tensor]

"""Negatives of a contrastive loss: images of other classes, drawn for each step.

Each image of a batch gets K negatives: training images of other classes, drawn uniformly and without repetition. They
are the first K images of other classes in a random order of the training set.

All images of a batch share this order. They then read nearly the same rows of the memory bank, a little more than K
instead of K per image, and all their similarities to these rows are a single matrix product. The negatives of one image
have the same distribution as with an order of its own; only the negatives of two images are no longer independent.

If the other classes have fewer than K images, all of them are negatives, and each counts K / (their number) times,
which is the expected count of a draw with repetition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError

# Standard deviations by which the share of a class among the first M images may exceed its share of the training set.
MARGIN = 8


def candidates_needed(count: int, *, images: int, largest: int) -> int:
    """Return how many images M of a random order must be read to find `count` images outside any one class.

    With p = the share of the largest class and q = 1 - p, the first M images contain M q images outside that class on
    average, with a standard deviation of at most sqrt(M p q). The result is the smallest M with

        M q - MARGIN sqrt(M p q) >= count

    but not more than count + largest, which is enough with certainty, and not more than all images. A smaller M
    suffices except with negligible probability.

    Args:
        count: images to find (K).
        images: size of the training set.
        largest: size of its largest class.

    Example:
        >>> candidates_needed(4096, images=50_000, largest=5_000), candidates_needed(7, images=60, largest=30)
        (4735, 37)
    """
    p, q = largest / images, 1 - largest / images
    # With r = sqrt(M) the condition is q r^2 - MARGIN sqrt(p q) r - count >= 0; this is the positive root.
    root = (MARGIN * math.sqrt(p * q) + math.sqrt(MARGIN**2 * p * q + 4 * q * count)) / (2 * q)
    return min(images, count + largest, math.ceil(root**2))


class NegativeSampler(nn.Module):
    """Sampler of negatives for a whole batch at once, on the training device.

    Args:
        labels: [images], class of each image of the training set.
        count: negatives per image (K).

    Raises:
        SqakdError: if all images are of one class.

    Example:
        >>> sampler = NegativeSampler(torch.tensor([0, 0, 1, 1, 2]), count=2)
        >>> draws = sampler.draw(torch.tensor([0, 4]), torch.Generator().manual_seed(0))
        >>> draws["chosen"].sum(dim=1).tolist(), draws["repeats"].tolist()
        ([2, 2], [1.0, 1.0])
    """

    labels: Tensor
    classes: Tensor

    def __init__(self, labels: Tensor, *, count: int) -> None:
        super().__init__()
        classes, labels, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
        if len(classes) < 2:
            raise SqakdError(
                "a contrastive loss compares each image with images of other classes, but all training images are of"
                " one class",
                topic="kd.no_negatives",
            )
        self.count = count
        self.candidates = candidates_needed(count, images=len(labels), largest=int(sizes.max()))
        # Buffers move to the training device with the module. They are no state: the data set has the labels.
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("classes", torch.arange(len(classes)), persistent=False)

    def draw(self, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw the negatives of one batch.

        Args:
            index: [N], positions of the batch's images in the training set.
            generator: a generator on the device of `index`.

        Returns:
            "candidates": [M], positions in the training set; the same for all images of the batch.
            "chosen": [N, M], True where a candidate is a negative of an image.
            "repeats": [N], how many times each negative of an image counts; 1 unless there are fewer than K.
        """
        candidates = torch.randperm(len(self.labels), generator=generator, device=index.device)[: self.candidates]
        # Images of one class have the same negatives, so they are chosen once per class, not once per image.
        other = self.labels[candidates] != self.classes[:, None]  # [classes, M]
        chosen = other & (other.cumsum(dim=1) <= self.count)
        repeats = self.count / chosen.sum(dim=1)
        own = self.labels[index]
        return {"candidates": candidates, "chosen": chosen[own], "repeats": repeats[own]}

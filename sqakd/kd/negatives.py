"""Images of other classes, drawn anew for each step: what a contrastive loss pushes an image away from.

Each image of a batch gets K images of the training set, uniformly from those of other classes and without a
repetition: the first K of other classes in one random order of the training set. The images of a batch share that
order, so the rows of a memory bank that a step needs are little more than K and the same for all, and their
similarities are one matrix product. What one image gets is distributed as if it were drawn alone. Where the other
classes have fewer than K images each of them counts K / (their number) times, the mean of a draw with repetition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Standard deviations by which a class may be more frequent than on average at the beginning of a random order.
MARGIN = 8


def enough(count: int, *, images: int, largest: int) -> int:
    """Length M of a random order's beginning that has `count` images outside any class.

    The smallest M with M q - MARGIN sqrt(M p q) >= count, where p = 1 - q is the largest class's share; certain where
    that reaches count + largest, and else all but certain.

    Args:
        count: images that are wanted.
        images: of the whole training set.
        largest: of its largest class.

    Example:
        >>> enough(4096, images=50_000, largest=5_000), enough(7, images=60, largest=30)
        (4735, 37)
    """
    p, q = largest / images, 1 - largest / images
    root = (MARGIN * math.sqrt(p * q) + math.sqrt(MARGIN**2 * p * q + 4 * q * count)) / (2 * q)
    return min(images, count + largest, math.ceil(root**2))


class OtherClasses(nn.Module):
    """Draws negatives on the device, for a whole batch at once.

    Args:
        labels: [images], class of each image of the training set.
        count: negatives of each image (K).

    Raises:
        ValueError: if there is no other class.

    Example:
        >>> others = OtherClasses(torch.tensor([0, 0, 1, 1, 2]), count=2)
        >>> draws = others.draw(torch.tensor([0, 4]), torch.Generator().manual_seed(0))
        >>> draws["chosen"].sum(dim=1).tolist(), draws["repeats"].tolist()
        ([2, 2], [1.0, 1.0])
    """

    labels: Tensor
    classes: Tensor

    def __init__(self, labels: Tensor, *, count: int) -> None:
        super().__init__()
        classes, labels, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
        if len(classes) < 2:
            raise ValueError(
                "this kd compares each image with images of other classes, and the training set's images are all of"
                " one class; type kd=sqakd, which needs no labels"
            )
        self.count = count
        self.candidates = enough(count, images=len(labels), largest=int(sizes.max()))
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("classes", torch.arange(len(classes)), persistent=False)

    def draw(self, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Negatives of one batch.

        Args:
            index: [N], positions in the training set.
            generator: on the device of `index`.

        Returns:
            "candidates" [M] positions in the training set, "chosen" [N, M] which of them are an image's negatives, and
            "repeats" [N] how often each of these counts.
        """
        candidates = torch.randperm(len(self.labels), generator=generator, device=index.device)[: self.candidates]
        other = self.labels[candidates] != self.classes[:, None]  # [classes, M]
        chosen = other & (other.cumsum(dim=1) <= self.count)
        repeats = self.count / chosen.sum(dim=1)
        own = self.labels[index]
        return {"candidates": candidates, "chosen": chosen[own], "repeats": repeats[own]}

"""Images of other classes, drawn anew for each step: what a contrastive loss pushes an image away from.

Each image of a batch gets K images of the training set, uniformly from those of other classes and without a
repetition: the first K of other classes in one random order of the training set. The images of a batch share that
order, so the rows of a memory bank that a step needs are few and the same for all (K and one class more), and their
similarities are one matrix product. What one image gets is distributed as if it were drawn alone. Where the other
classes have fewer than K images each of them counts K / (their number) times, the mean of a draw with repetition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
    wanted: Tensor

    def __init__(self, labels: Tensor, *, count: int) -> None:
        super().__init__()
        classes, labels, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
        if len(classes) < 2:
            raise ValueError(
                "this kd compares each image with images of other classes, and the training set's images are all of"
                " one class; type kd=sqakd, which needs no labels"
            )
        self.count = count
        # Among so many images there are K of other classes, whatever the class.
        self.candidates = min(len(labels), count + int(sizes.max()))
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("wanted", (len(labels) - sizes).clamp(max=count), persistent=False)

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
        classes = torch.arange(len(self.wanted), device=index.device)
        other = self.labels[candidates] != classes[:, None]
        chosen = other & (other.cumsum(dim=1) <= self.wanted[:, None])
        own = self.labels[index]
        return {"candidates": candidates, "chosen": chosen[own], "repeats": self.count / self.wanted[own]}

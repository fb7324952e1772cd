"""A look at a teacher on images without labels: the classes that it predicts, and how sure it is.

Nothing can be compared with a label there. But a teacher that gets wrongly normalised images is unsure, or predicts the
same class for almost all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sqakd.dataset.base import ImageDataModule
from sqakd.training.evaluate import predictions

SHOWN = 3  # classes
FEW = 100  # images; one of them is then a point of the agreement, or more


@dataclass(frozen=True)
class Confidence:
    """The predictions of a network on the validation images.

    Attributes:
        mean: mean probability of the predicted class, 0 to 1.
        counts: number of images for which each class is predicted.
        names: of the classes; empty to name them by their numbers.
    """

    mean: float
    counts: list[int]
    names: Sequence[str] = ()

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(self.counts)

    def text(self) -> str:
        """Return a line about the predictions.

        Example:
            >>> Confidence(0.875, [1, 6, 0, 3]).text()
            'mean confidence 87.5%, predicted classes 1 (60%), 3 (30%), 0 (10%); never 2'
        """
        order = sorted(range(len(self.counts)), key=lambda i: -self.counts[i])
        found = [i for i in order if self.counts[i]]
        never = [self._name(i) for i in order if not self.counts[i]]
        shown = ", ".join(f"{self._name(i)} ({self.counts[i] / self.images:.0%})" for i in found[:SHOWN])
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        absent = (
            f"; never {', '.join(never)}" if 0 < len(never) <= SHOWN else f"; never {len(never)} others" * bool(never)
        )
        return f"mean confidence {self.mean:.1%}, predicted classes {shown}{more}{absent}"

    def _name(self, index: int) -> str:
        return self.names[index] if self.names else str(index)

    def problem(self) -> str | None:
        """Return why the agreement will mean little, or None.

        Example:
            >>> Confidence(0.9, [12, 8]).problem()
            'the agreement is measured on 20 images, so one image is 5.0 points'
        """
        if self.images >= FEW:
            return None
        return f"the agreement is measured on {self.images} images, so one image is {100 / self.images:.1f} points"


@torch.no_grad()
def confidence(network: nn.Module, data: ImageDataModule, device: torch.device) -> Confidence:
    """Measure a network on the validation images. Each process measures all images.

    Args:
        network: images [N, C, H, W] -> logits [N, classes]; it is not changed.
        data: images, not attached to a trainer yet.
        device: where to compute.
    """
    best: list[Tensor] = []
    predicted: list[Tensor] = []
    classes = 0
    for logits, _ in predictions(network, data, device):
        probabilities = logits.float().softmax(dim=1)
        classes = probabilities.shape[1]
        highest, index = probabilities.max(dim=1)
        best.append(highest)
        predicted.append(index)
    counts: list[int] = torch.bincount(torch.cat(predicted), minlength=classes).tolist()
    return Confidence(float(torch.cat(best).mean()), counts, data.class_names)

r"""CutMix on the view that student and teacher share: each image takes a box of its neighbour in the batch.

Paper: Yun, Han, Oh, Chun, Choe, Yoo 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
Features", ICCV 2019 (https://arxiv.org/abs/1905.04899), section 3.1. With r uniform in [0, 1] (the paper's 1 - lambda
at alpha = 1) and a centre uniform in the image:

    box = centre +- sqrt(r) (H, W) / 2, cut off at the border
    x_i = x_j inside the box, x_i outside

A teacher looks at the mixed image itself, so there is no label to mix (Beyer et al. 2022, "Knowledge distillation: A
good teacher is patient and consistent", https://arxiv.org/abs/2106.05237). Where ours differs: each image has a box of
its own. The order of a batch is random already, so partners are neighbours, which devices find on
their own side where each has an even number of images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqakd.dataset.transforms.augment import Augment
from sqakd.numbers import is_number


class CutMix(Augment):
    """A box of each image is its neighbour's.

    Args:
        probability: share of the images that are mixed.
    """

    mixes = True

    def __init__(self, *, probability: float) -> None:
        if not is_number(probability) or not 0 < probability <= 1:
            raise ValueError(f"plus.cutmix.probability={probability!r}: expected a number above 0 and at most 1")
        self.probability = probability

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        area, row, column, chance = torch.rand(4, n, generator=generator)
        return {"area": torch.where(chance < self.probability, area, 0.0), "row": row, "column": column}

    def __call__(self, images: Tensor, draws: dict[str, Tensor]) -> Tensor:
        n, _, height, width = images.shape
        side = draws["area"].sqrt()
        rows = _covered(height, draws["row"], side)
        columns = _covered(width, draws["column"], side)
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        return torch.where(inside, images[partners(n, images.device)], images)


def _covered(length: int, centre: Tensor, side: Tensor) -> Tensor:
    """Pixels [N, length] whose middle is in a box; centre and side [N] as shares of the length."""
    middles = (torch.arange(length, device=centre.device) + 0.5) / length
    return (middles - centre[:, None]).abs() < side[:, None] / 2


def partners(n: int, device: torch.device) -> Tensor:
    """For each of n images the other one of its pair; the last of an odd number takes the one before it.

    Example:
        >>> partners(5, torch.device("cpu")).tolist()
        [1, 0, 3, 2, 3]
    """
    own = torch.arange(n, device=device)
    other = own ^ 1
    return torch.where(other < n, other, (own - 1).clamp_min(0))

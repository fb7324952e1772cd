r"""CutMix for images that student and teacher share: each image receives a box of its neighbour in the batch.

Paper: Yun, Han, Oh, Chun, Choe, Yoo 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
Features", ICCV 2019 (https://arxiv.org/abs/1905.04899), section 3.1. With r uniform in [0, 1] (the paper's 1 - lambda
at alpha = 1) and a centre uniform in the image:

    box = centre +- sqrt(r) (H, W) / 2, cut off at the border
    x_i = x_j inside the box, x_i outside

The teacher's target is computed from the mixed image, so no labels need to be mixed (Beyer et al. 2022, "Knowledge
distillation: A good teacher is patient and consistent", https://arxiv.org/abs/2106.05237). Where ours differs: each
image has its own box, where the paper draws one box for a batch. Partners are neighbours, which is as random as the
order of the batch; with several devices, an image's partner is on the same device if each device has an even number of
images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqakd.dataset.transforms.augment import Augment
from sqakd.numbers import check_positive_share


class CutMix(Augment):
    """A random box of each image, replaced by the same box of its neighbour.

    Args:
        probability: share of the images that are mixed.

    Raises:
        SqakdError: if the probability is not above 0 and at most 1.
    """

    mixes = True

    def __init__(self, *, probability: float) -> None:
        check_positive_share("probability", probability)
        self.probability = probability

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the boxes' area and centre as shares of the image; an image that is not mixed has area 0."""
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
    """Return a mask [N, length] of the pixels whose middle is in a box.

    Args:
        length: pixels along this axis.
        centre: centre of each box, as a share of the length, [N].
        side: length of each box, as a share of the length, [N].
    """
    middles = (torch.arange(length, device=centre.device) + 0.5) / length
    return (middles - centre[:, None]).abs() < side[:, None] / 2


def partners(n: int, device: torch.device) -> Tensor:
    """Return the partner's position for each of n images: the other image of its pair.

    In a batch of odd size, the partner of the last image is the image before it.

    Example:
        >>> partners(5, torch.device("cpu")).tolist()
        [1, 0, 3, 2, 3]
    """
    own = torch.arange(n, device=device)
    other = own ^ 1
    return torch.where(other < n, other, (own - 1).clamp_min(0))

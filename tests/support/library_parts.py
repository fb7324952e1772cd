"""A small float network and small batches for the tests of the library's face."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 5
SHAPE = (3, 8, 8)


def network(seed: int = 0) -> nn.Sequential:
    """Return images [N, 3, 8, 8] -> logits [N, 5]; its middle convolution is quantized."""
    torch.manual_seed(seed)
    made = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, CLASSES)
    )
    for _ in range(40):  # until the statistics of batch norm are those of the images
        made(images(64))
    return made.requires_grad_()


def images(count: int = 8, seed: int = 1) -> Tensor:
    """Return normalised images [count, 3, 8, 8]."""
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def batches(count: int = 3) -> list[Tensor]:
    """Return batches of 8 images."""
    return [images(seed=1 + i) for i in range(count)]

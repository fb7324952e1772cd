"""Brightness, contrast and saturation of a whole batch, each image by factors of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from sqakd.dataset.transforms.augment import Augment


class ColourJitter(Augment):
    """Blend each image with black, with its mean grey and with itself in grey, in this order.

    Each factor is uniform in [max(0, 1 - strength), 1 + strength]; 1 changes nothing, 0 leaves only what is blended in.
    As torchvision's ColorJitter without hue, except that the order is always the same and nothing is rounded.

    Args:
        brightness: strength >= 0; 0 is none.
        contrast: the same.
        saturation: the same.
    """

    def __init__(self, *, brightness: float, contrast: float, saturation: float) -> None:
        self.strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, strength in self.strengths.items():
            if strength < 0:
                raise ValueError(f"{name}={strength} of a colour jitter: expected a number >= 0")

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        factors = {}
        for name, strength in self.strengths.items():
            low = max(0.0, 1 - strength)
            factors[name] = torch.rand(n, generator=generator) * (1 + strength - low) + low
        return factors

    def __call__(self, images: Tensor, draws: dict[str, Tensor]) -> Tensor:
        """Float32 [N, 3, H, W], values 0 .. 255."""
        images = images.float()
        factor = {name: draws[name][:, None, None, None] for name in self.strengths}
        if self.strengths["brightness"]:
            images = images.mul(factor["brightness"]).clamp_(0, 255)
        if self.strengths["contrast"]:
            mean = grey(images.mean((2, 3), keepdim=True))
            images = torch.lerp(mean, images, factor["contrast"]).clamp_(0, 255)
        if self.strengths["saturation"]:
            images = torch.lerp(grey(images), images, factor["saturation"]).clamp_(0, 255)
        return images


def grey(images: Tensor) -> Tensor:
    """Brightness as an eye sees it (ITU-R BT.601), [N, 3, H, W] -> [N, 1, H, W]."""
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)

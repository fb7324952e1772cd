"""Random brightness, contrast and saturation for a whole batch, with separate factors for each image."""

from __future__ import annotations

import torch
from torch import Tensor

from sqakd.dataset.checks import check_strength
from sqakd.dataset.transforms.augment import Augment


class ColourJitter(Augment):
    """Blends of each image with black, with its mean grey and with its grey version, in this order.

    Each factor is uniform in [max(0, 1 - strength), 1 + strength]. Factor 1 leaves the image unchanged, and factor 0
    replaces it by the other image. Equal to torchvision's ColorJitter without hue, except that the order is always the
    same and that nothing is rounded.

    Args:
        brightness: strength of the blend with black, >= 0; 0 turns it off.
        contrast: strength of the blend with the mean grey, >= 0; 0 turns it off.
        saturation: strength of the blend with the grey version, >= 0; 0 turns it off.

    Raises:
        SqakdError: if a strength is not a number from 0 to 10.
    """

    def __init__(self, *, brightness: float, contrast: float, saturation: float) -> None:
        self.strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, strength in self.strengths.items():
            check_strength(name, strength)

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        factors = {}
        for name, strength in self.strengths.items():
            low = max(0.0, 1 - strength)
            factors[name] = torch.rand(n, generator=generator) * (1 + strength - low) + low
        return factors

    def __call__(self, images: Tensor, draws: dict[str, Tensor]) -> Tensor:
        """Return the changed images, float32 [N, 3, H, W], values 0 .. 255."""
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
    """Return the perceived brightness (ITU-R BT.601), [N, 3, H, W] -> [N, 1, H, W]."""
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)

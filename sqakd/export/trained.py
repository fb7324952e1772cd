"""A trained network with everything that its export needs; the application builds it from a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from sqakd.images import Preparation


class ValidationBatch(NamedTuple):
    """One batch of validation images.

    Attributes:
        pixels: 0 .. 255, uint8 [N, 3, H, W], read as the users of the exported file read images.
        inputs: the same pixels, normalised, float32.
        images: the data set's own images, normalised, float32; those that the trained network gets.
        labels: [N], or None.
    """

    pixels: Tensor
    inputs: Tensor
    images: Tensor
    labels: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network with its data and what is known about it.

    Attributes:
        network: quantized and calibrated, on the CPU.
        float_network: the same architecture in float, for comparison.
        float_source: where the weights of `float_network` come from.
        image_shape: channels, height, width.
        class_names: in the order of the logits; empty if unknown.
        mean: mean of each channel, of pixels scaled to 0 .. 1.
        std: standard deviation of each channel.
        preparation: how an image file becomes the pixels that the network gets.
        identity: name, seed and the like, for the record and the model's metadata.
        calibration: returns a number of normalised training images [N, C, H, W].
        validation: returns an iterator over all validation images.
    """

    network: nn.Module
    float_network: nn.Module
    float_source: str
    image_shape: tuple[int, int, int]
    class_names: list[str]
    mean: list[float]
    std: list[float]
    preparation: Preparation
    identity: dict[str, Any]
    calibration: Callable[[int], Tensor]
    validation: Callable[[], Iterable[ValidationBatch]]

r"""SQuaT: the teacher's feature is quantized with the student's own quantizer before the two are compared.

Paper: "SQuaT", AISTATS 2026 (https://arxiv.org/abs/2608.10709). A student whose feature lies on a grid can never meet a
float feature; on the same grid it can. With D the student's quantizer at the tap, codes scaled to [0, 1] (or [-1, 1]
where they have a sign), and sg for "counts as a constant":

    loss = distance(D(student), sg D(teacher)),      distance: mean (a - b)^2, mean |a - b|, or mean 1 - cos(a, b)

The tap is the input of the network's last quantized convolution. The gradient reaches the range of that one quantizer
and everything before it; the teacher's codes are made with the range as it is in this step, held constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.base import Example, FeatureLoss, Seen, mismatch

Distance = Literal["l2", "l1", "cosine"]


class Encoder(Protocol):
    """What SQuaT needs of a quantizer, whatever its method."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes, and the value of one code."""

    def grid(self) -> Tensor:
        """All codes."""


def code_distance(student: Tensor, teacher: Tensor, distance: Distance) -> Tensor:
    """Distance of two tensors of codes [N, ...], mean over the batch.

    Example:
        >>> code_distance(torch.ones(1, 4), torch.tensor([[1.0, 0.0, 0.0, 1.0]]), "l2").item()
        0.5
    """
    if distance == "l2":
        return F.mse_loss(student, teacher)
    if distance == "l1":
        return F.l1_loss(student, teacher)
    return (1 - F.cosine_similarity(student.flatten(1), teacher.flatten(1))).mean()


class SQuaT(FeatureLoss):
    """At one quantized layer.

    Args:
        distance: "l2" (the paper's), "l1" or "cosine".
        tap: name of the quantized layer whose input is compared; None for the last quantized convolution.

    Raises:
        ValueError: for another distance, or, in `taps`, if that layer is not quantized.
    """

    def __init__(self, *, distance: Distance, tap: str | None) -> None:
        super().__init__()
        if distance not in ("l2", "l1", "cosine"):
            raise ValueError(f"kd.feature_loss.distance={distance!r}: expected l2, l1 or cosine")
        self.distance, self.tap = distance, tap
        # The student's own quantizer, kept outside torch's registry: its parameters have one owner.
        self.__dict__["quantizer"] = None

    quantizer: Encoder | None

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        """The tap's input; the teacher, which is float, is tapped where the student was, by the same name."""
        quantized = {name: module for name, module in network.named_modules() if hasattr(module, "input_quantizer")}
        if quantized:
            convolutions = [name for name, module in quantized.items() if isinstance(module, nn.Conv2d)]
            name = self.tap or (convolutions or list(quantized))[-1]
            if name not in quantized:
                last = ", ".join(list(quantized)[-4:])
                raise ValueError(f"kd.feature_loss.tap={name}: expected a quantized layer; the last are {last}")
            quantizer: Encoder = quantized[name].input_quantizer
            self.__dict__["quantizer"] = quantizer
            self.largest = int(quantizer.grid().abs().max())
            self.names = [f"{name}:input"]
        elif not self.names:
            raise ValueError("kd=squat needs a quantized student: its quantizer is what the teacher is seen through")
        return self.names

    def build(self, example: Example) -> None:
        student, teacher = example.student[0], example.teacher[0]
        if student.shape != teacher.shape:
            raise mismatch(self, self.names[0], student, teacher, "the same shape")

    def encode(self, feature: Tensor) -> Tensor:
        """Codes of a feature, scaled so that the largest magnitude is 1."""
        assert self.quantizer is not None
        codes, _ = self.quantizer.encode(feature.float())
        return codes / self.largest

    def forward(self, seen: Seen) -> list[Tensor]:
        with torch.no_grad():
            teacher = self.encode(seen.teacher[0])
        return [code_distance(self.encode(seen.student[0]), teacher, self.distance)]

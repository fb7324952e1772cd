r"""SQuaT: the teacher's feature is quantized with the student's own quantizer before the two are compared.

Paper: "SQuaT", AISTATS 2026 (https://arxiv.org/abs/2608.10709). A student whose feature lies on a grid can never equal
a float feature, but it can equal a feature on the same grid. With D = the codes of the student's quantizer at the tap,
scaled to [0, 1] (or to [-1, 1] for signed codes), and sg = stop-gradient,

    loss = distance(D(student), sg D(teacher)),      distance: mean (a - b)^2, mean |a - b|, or mean 1 - cos(a, b)

The tap is the input of the network's last quantized convolution. The gradient reaches the range of that quantizer and
all layers before it. The teacher's codes are computed with the quantizer's current range, held constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch, FeatureLoss, SetupInfo, mismatch
from sqakd.kd.hooks import INPUT

Distance = Literal["l2", "l1", "cosine"]


class Encoder(Protocol):
    """The part of a quantizer that SQuaT uses; every quantizer of this project has it."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes of `x` and the scale, which is the value of one code."""

    @property
    def largest_code(self) -> int:
        """The largest magnitude of a code; it changes with the bits, and with the sign that the calibration finds."""


def code_distance(student: Tensor, teacher: Tensor, distance: Distance) -> Tensor:
    """Return the distance of two tensors of scaled codes, as a mean over the batch.

    Args:
        student: [N, ...].
        teacher: [N, ...], of the same shape.
        distance: "l2", "l1" or "cosine".

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
    """SQuaT at the input of one quantized layer.

    Args:
        distance: "l2" (the paper's), "l1" or "cosine".
        tap: name of the quantized layer whose input is compared; None for the last quantized convolution.

    Raises:
        SqakdError: if the distance is unknown; in `taps`, if that layer or the whole student is not quantized.
    """

    def __init__(self, *, distance: Distance, tap: str | None) -> None:
        super().__init__()
        if distance not in ("l2", "l1", "cosine"):
            raise SqakdError(f"distance={distance!r}: expected l2, l1 or cosine")
        self.distance, self.tap = distance, tap
        # The quantizer belongs to the student. Writing to __dict__ keeps it out of torch's module registry: its
        # parameters would else be registered twice, and be twice in the checkpoint and in the optimizer.
        self.__dict__["quantizer"] = None

    quantizer: Encoder | None

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        """Return the tap. It is found in the quantized student; the float teacher is tapped at the same name.

        The student's taps are therefore asked for first.
        """
        quantized = {name: module for name, module in network.named_modules() if hasattr(module, "input_quantizer")}
        if quantized:
            convolutions = [name for name, module in quantized.items() if isinstance(module, nn.Conv2d)]
            name = self.tap or (convolutions or list(quantized))[-1]
            if name not in quantized:
                last = ", ".join(list(quantized)[-4:])
                raise SqakdError(f"tap={name}: expected a quantized layer; the last are {last}")
            quantizer: Encoder = quantized[name].input_quantizer
            self.__dict__["quantizer"] = quantizer
            self.names = [f"{name}{INPUT}"]
        elif not self.names:
            raise SqakdError(
                "SQuaT quantizes the teacher's feature with a quantizer of the student, but the student has none",
                topic="kd.not_quantized",
            )
        return self.names

    def setup(self, info: SetupInfo) -> None:
        ((name, student, teacher),) = self.pairs(info)
        if student.shape != teacher.shape:
            raise mismatch(self, name, student, teacher, "the same shape")

    def encode(self, feature: Tensor) -> Tensor:
        """Return the codes of a feature, scaled so that the largest possible magnitude is 1."""
        assert self.quantizer is not None
        codes, _ = self.quantizer.encode(feature.float())
        return codes / self.quantizer.largest_code

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        with torch.no_grad():
            teacher = self.encode(batch.teacher[0])
        return [code_distance(self.encode(batch.student[0]), teacher, self.distance)]

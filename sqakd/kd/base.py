"""What every loss on features promises: the base of the KD zoo.

A loss names the layers it looks at (`taps`), makes parameters of its own once their shapes are known (`build`), draws
its random numbers outside of the compiled step (`draw`) and returns one scalar for each thing it compares (`forward`).
What a step leaves behind for the next one (memory banks) is written after the backward pass (`remember`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Seen(NamedTuple):
    """One batch as a loss sees it; the teacher's part counts as a constant.

    Attributes:
        student: feature of each tap, [N, C, H, W] or [N, D], before any quantization.
        teacher: the same of the teacher.
        student_logits: [N, classes].
        teacher_logits: [N, classes].
        index: [N], position of each image in the training set.
        draws: what `draw` returned.
    """

    student: list[Tensor]
    teacher: list[Tensor]
    student_logits: Tensor
    teacher_logits: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    draws: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Example:
    """What a loss is built for.

    Attributes:
        student: features of a small batch at the student's taps; for their shapes.
        teacher: the same of the teacher.
        network: the quantized student.
        images: size of the training set.
        labels: [images] of the training set, or None.
    """

    student: list[Tensor]
    teacher: list[Tensor]
    network: nn.Module
    images: int
    labels: Tensor | None


class FeatureLoss(nn.Module, ABC):
    """Compares what student and teacher make of an image on the way to their logits."""

    # Whether the loss itself reads labels of the training set (the cross-entropy beside it is another matter).
    needs_labels = False
    # Whether its buffers are the same in all processes of a training by its own doing, so that none has to send them.
    keeps_buffers_equal = False
    # Whether it compares layers before the logits; if not, a network need not name any.
    looks_inside = True
    # Passes over the training images before the student's own training, and their learning rate.
    pretrain_epochs = 0
    pretrain_lr = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        """Layers to look at; what `Seen` holds, in this order.

        Args:
            layers: `feature_layers` of a model: the first map, each stage's map, and last the pooled vector.
            network: the model itself.
        """
        return list(layers)

    def build(self, example: Example) -> None:
        """Make parameters and buffers.

        Raises:
            ValueError: if the shapes do not go together; see `mismatch`.
        """

    def draw(self, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Random numbers of one step, on the device of `index` and of the generator."""
        return {}

    @abstractmethod
    def forward(self, seen: Seen) -> list[Tensor]:
        """Scalars whose sum is the loss, one for each name in `names`."""

    def remember(self) -> None:
        """Write what the next step needs to know of this one; called once the gradients are there."""

    def set_pretraining(self, *, epochs: int, lr: float) -> None:
        """For constructors of losses with a stage before the training; 0 epochs leave it out.

        Raises:
            ValueError: for a length or a learning rate that is none.
        """
        if not isinstance(epochs, int) or epochs < 0:
            raise ValueError(f"kd.feature_loss.pretrain_epochs={epochs!r}: expected a whole number >= 0")
        if not 0 <= lr < math.inf:
            raise ValueError(f"kd.feature_loss.pretrain_lr={lr!r}: expected a number >= 0")
        self.pretrain_epochs, self.pretrain_lr = epochs, lr

    def pretrain_parameters(
        self, network: Sequence[nn.Parameter], quantizer: Sequence[nn.Parameter]
    ) -> list[nn.Parameter]:
        """What the stage before the training trains; those of the student that its loss does not reach are left out.

        Args:
            network: the student's, without those of its quantizers.
            quantizer: those of its quantizers.
        """
        return []

    def pretrain_loss(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Loss of that stage.

        Args:
            student: feature of each tap; empty if the stage trains nothing of the student, which then does not run.
            teacher: feature of each tap.
        """
        raise NotImplementedError


def mismatch(loss: FeatureLoss, tap: str, student: Tensor, teacher: Tensor, wanted: str) -> ValueError:
    """The error of features that do not go together: both shapes, and what to type."""
    return ValueError(
        f"{type(loss).__name__} at {tap}: the student's feature has shape {list(student.shape[1:])} and the teacher's"
        f" {list(teacher.shape[1:])}; expected {wanted}. Choose other layers with model.feature_layers=[...] (student)"
        f" and teacher.feature_layers=[...], or another kd"
    )

"""The contract of a feature loss: what a loss of `sqakd.kd` receives, what it returns and when each method is called.

A feature loss compares features of student and teacher, not only their logits. Its methods are called in this order:

1. `taps` names the layers to compare, once for each network. A tap is a point of a network where a feature is read;
   `hooks` describes how a tap is named.
2. `setup` receives features of a small batch and creates parameters and buffers of the right shapes.
3. Each training step calls `draw` for random numbers, then `forward` for the loss, then `after_backward`. `draw` and
   `after_backward` run outside the compiled graph, so they may use a random generator or communicate between ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.numbers import check_not_negative, check_share, check_whole


class FeatureBatch(NamedTuple):
    """Features and logits of one training batch, as a loss receives them. No gradient flows to the teacher.

    Attributes:
        student: feature of each tap, [N, C, H, W] or [N, D], before any quantization.
        teacher: the teacher's features, in the same order and with the same kinds of shapes.
        student_logits: [N, classes].
        teacher_logits: [N, classes].
        index: [N], position of each image in the training set.
        draws: random numbers of this step, as returned by `FeatureLoss.draw`.
    """

    student: list[Tensor]
    teacher: list[Tensor]
    student_logits: Tensor
    teacher_logits: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    draws: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class SetupInfo:
    """Facts that a loss needs to create its parameters and buffers.

    Attributes:
        student: features of a small batch at the student's taps; only their shapes matter.
        teacher: features of the same batch at the teacher's taps.
        training_images: size of the training set.
        labels: [training_images], class of each training image, or None.
    """

    student: list[Tensor]
    teacher: list[Tensor]
    training_images: int
    labels: Tensor | None


class FeatureLoss(nn.Module, ABC):
    """Base class of the losses that compare features of student and teacher.

    Attributes:
        names: one name per term of the loss, used in error messages. The training sets `names` to the student's taps
            before `setup`; a loss whose terms are not one per tap replaces them in `setup`.
    """

    # True if the loss itself reads the labels of the training set. The cross-entropy of the objective does not count.
    needs_labels = False
    # True if the loss keeps its buffers equal on all ranks. DDP then need not broadcast them before every step.
    synchronizes_buffers = False
    # True if the loss compares layers before the logits. If False, a network need not name any feature layer.
    uses_layers = True
    # A stage before the student's training either has so many epochs of its own, with SGD and momentum as in the papers
    # of FT and FSP, or takes a share of the recipe's epochs, with its optimizer. Both 0: there is no stage.
    pretrain_epochs = 0
    pretrain_share = 0.0
    # Learning rate of the stage; None for the recipe's highest.
    pretrain_lr: float | None = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        """Return the taps to compare; the features of a `FeatureBatch` have the same order.

        Args:
            layers: `feature_layers` of a model: the first map, the map of each stage, and last the pooled vector.
            network: the model itself.
        """
        return list(layers)

    def setup(self, info: SetupInfo) -> None:
        """Create the parameters and buffers of the loss.

        Raises:
            SqakdError: if the features of student and teacher have incompatible shapes; see `mismatch`.
        """

    def draw(self, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw the random numbers of one step.

        Args:
            index: [N], position of each image in the training set.
            generator: a generator on the device of `index`; the result is on that device too.
        """
        return {}

    @abstractmethod
    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        """Return the terms of the loss, one scalar for each name in `names`; the loss is their sum."""

    def after_backward(self) -> None:
        """Update what the next step needs of this one, such as a memory bank. Called once per backward pass."""

    @property
    def has_stage(self) -> bool:
        """Whether there is a stage before the training."""
        return self.pretrain_epochs > 0 or self.pretrain_share > 0

    def set_pretraining(self, *, epochs: int = 0, share: float = 0.0, lr: float | None) -> None:
        """Set the length and the learning rate of the stage before the training; for use in constructors.

        Args:
            epochs: passes over the training images, in addition to the recipe's epochs.
            share: of the recipe's epochs, instead of `epochs`.
            lr: learning rate; None for the recipe's highest.

        Raises:
            SqakdError: if `epochs` is not a whole number >= 0, `share` not in [0, 1), or `lr` not a finite number >= 0.
        """
        check_whole("pretrain_epochs", epochs, minimum=0)
        check_share("pretrain_share", share)
        if lr is not None:
            check_not_negative("pretrain_lr", lr)
        self.pretrain_epochs, self.pretrain_share, self.pretrain_lr = epochs, share, lr

    def pretrain_parameters(
        self, network: Sequence[nn.Parameter], quantizer: Sequence[nn.Parameter]
    ) -> list[nn.Parameter]:
        """Return the parameters that the stage before the training optimizes.

        Parameters of the student without influence on `pretrain_loss` may be included: the stage leaves them frozen.

        Args:
            network: parameters of the student, without those of its quantizers.
            quantizer: parameters of the student's quantizers.
        """
        return []

    def pretrain_loss(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the loss of the stage before the training.

        Args:
            student: feature of each tap. Empty if the stage optimizes no parameter of the student, because the
                student's forward pass is then skipped.
            teacher: feature of each tap.
        """
        raise NotImplementedError

    def pairs(self, info: SetupInfo) -> list[tuple[str, Tensor, Tensor]]:
        """Return (name, student's feature, teacher's feature) of each tap; for use in `setup`."""
        return list(zip(self.names, info.student, info.teacher, strict=True))


def mismatch(loss: FeatureLoss, tap: str, student: Tensor, teacher: Tensor, expected: str) -> SqakdError:
    """Return the error for two features of incompatible shapes; the message states both shapes."""
    return SqakdError(
        f"{type(loss).__name__} at {tap}: the student's feature has shape {list(student.shape[1:])} and the teacher's"
        f" {list(teacher.shape[1:])}; expected {expected}",
        topic="kd.shapes",
    )

r"""Reconstruction: the student learns to reproduce the teacher's features, and then learns the teacher's logits.

    loss = sum over layers of  mean (student - teacher)^2 / mean teacher^2

The layers are the map of each stage of the network and the pooled vector. A quantized network starts as a copy of its
teacher, so its features have the teacher's shapes and meaning, and rounding errors alone separate them. (A teacher of
another architecture may have the shapes, too; whether its features help is open.) Few layers lie between a weight
and the nearest term of this loss, while the gradient of the logits passes each rounding of the network. The loss
belongs to a stage before the training, which needs no labels; kd.feature=1 keeps the loss in the training.

Block-wise reconstruction is from post-training quantization: Li et al. 2021, "BRECQ: Pushing the Limit of Post-Training
Quantization by Block Reconstruction" (https://arxiv.org/abs/2102.05426), which rounds the weights of one block after
the other on a few images. Where this differs: all layers learn at the same time, with the optimizer of the training,
and the training follows. Ranges stay as calibrated in the stage.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sqakd.kd.base import FeatureBatch, FeatureLoss, SetupInfo, mismatch

LEAST_POWER = 1e-12  # mean square of a feature that counts as having values


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two features, as a share of the teacher's mean square.

    A teacher's feature without values, e.g. behind ReLUs that all died, has no share and returns 0.

    Args:
        student: [N, ...].
        teacher: [N, ...], of the same shape.

    Example:
        >>> float(relative_error(torch.zeros(2, 3), torch.full((2, 3), 5.0)))
        1.0
    """
    teacher = teacher.float()
    error, power = (student.float() - teacher).square().mean(), teacher.square().mean()
    return torch.where(power > LEAST_POWER, error / power.clamp(min=LEAST_POWER), 0.0)


def relative_errors(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
    """Return the relative error of each feature."""
    return [relative_error(*pair) for pair in zip(student, teacher, strict=True)]


class Reconstruction(FeatureLoss):
    """Relative errors of the map of each stage and of the pooled vector.

    Args:
        pretrain_share: share of the recipe's epochs that the stage before the training takes.
        pretrain_lr: learning rate of this stage; None for the recipe's highest.

    Raises:
        SqakdError: if the share is not in [0, 1), or the learning rate negative.
    """

    def __init__(self, *, pretrain_share: float, pretrain_lr: float | None) -> None:
        super().__init__()
        self.set_pretraining(share=pretrain_share, lr=pretrain_lr)

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return list(layers[1:])

    def setup(self, info: SetupInfo) -> None:
        for name, student, teacher in self.pairs(info):
            if student.shape != teacher.shape:
                raise mismatch(self, name, student, teacher, "the same shape")

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        return relative_errors(batch.student, batch.teacher)

    def pretrain_parameters(
        self, network: Sequence[nn.Parameter], quantizer: Sequence[nn.Parameter]
    ) -> list[nn.Parameter]:
        return list(network)

    def pretrain_loss(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        return torch.stack(relative_errors(student, teacher)).sum()

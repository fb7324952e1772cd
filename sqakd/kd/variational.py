r"""Variational information distillation (VID): the student's maps should predict the teacher's maps.

Paper: Ahn et al. 2019, "Variational Information Distillation for Knowledge Transfer"
(https://arxiv.org/abs/1904.05835). A Gaussian q(t | s) predicts the teacher's map t from the student's map s. The mean
mu(s) is a small network; the variance is learned, one per channel. Minimising the negative log-likelihood maximises a
lower bound of the mutual information between s and t. For each stage, without the likelihood's constant,

    loss = mean of  ((mu(s) - t)^2 / sigma^2 + log sigma^2) / 2,     sigma^2 = softplus(rho) + epsilon

where mu is three 1x1 convolutions with ReLU between, and rho [C] is a parameter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch, SetupInfo
from sqakd.kd.inputs import StageMaps
from sqakd.kd.shapes import to_smaller


def gaussian_loss(mean: Tensor, variance: Tensor, teacher: Tensor) -> Tensor:
    """Return the negative log-likelihood of the teacher's map, without its constant, averaged over all elements.

    Args:
        mean: [N, C, H, W], predicted map.
        variance: [C].
        teacher: [N, C, H, W].

    Example:
        >>> import torch
        >>> float(gaussian_loss(torch.zeros(1, 1, 1, 1), torch.ones(1), torch.full((1, 1, 1, 1), 2.0)))
        2.0
    """
    variance = variance.float().view(1, -1, 1, 1)
    return ((mean.float() - teacher.float()).square() / variance + variance.log()).mean() / 2


class VariationalGaussian(nn.Module):
    """The distribution q(t | s) of one stage.

    Args:
        inputs: channels of the student's map.
        outputs: channels of the teacher's map.
        variance: initial variance.
        epsilon: lower bound of the variance.
    """

    def __init__(self, *, inputs: int, outputs: int, variance: float, epsilon: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 1, bias=False),
        )
        self.epsilon = epsilon
        # log(exp(x) - 1) is the inverse of softplus, so that the variance starts at `variance`.
        self.rho = nn.Parameter(torch.full((outputs,), math.log(math.expm1(variance - epsilon))))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of one stage; the larger map is average-pooled to the smaller."""
        student, teacher = to_smaller(student.float(), teacher.float())
        return gaussian_loss(self.mean(student), F.softplus(self.rho) + self.epsilon, teacher)


class VariationalInformation(StageMaps):
    """Variational information distillation at the map of each stage.

    Args:
        variance: initial variance.
        epsilon: lower bound of the variance.

    Raises:
        SqakdError: unless variance > epsilon > 0.
    """

    guesses: nn.ModuleList  # one q(t | s) per stage; the name is part of saved checkpoints

    def __init__(self, *, variance: float, epsilon: float) -> None:
        super().__init__()
        if not variance > epsilon > 0:
            raise SqakdError(f"variance={variance} epsilon={epsilon}: expected variance > epsilon > 0")
        self.variance, self.epsilon = variance, epsilon

    def setup(self, info: SetupInfo) -> None:
        super().setup(info)
        self.guesses = nn.ModuleList(
            VariationalGaussian(
                inputs=student.shape[1], outputs=teacher.shape[1], variance=self.variance, epsilon=self.epsilon
            )
            for student, teacher in zip(info.student, info.teacher, strict=True)
        )

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        return [guess(s, t) for guess, s, t in zip(self.guesses, batch.student, batch.teacher, strict=True)]

r"""Variational information distillation (VID): the student's features are to tell much about the teacher's.

Paper: Ahn et al. 2019, "Variational Information Distillation for Knowledge Transfer"
(https://arxiv.org/abs/1904.05835). A Gaussian guess of the teacher's map t from the student's map s,
with a learned mean for each place and a learned variance for each channel, scored by its negative log-likelihood (the
constant left out). For each stage,

    loss = mean of  ((mu(s) - t)^2 / sigma^2 + log sigma^2) / 2,     sigma^2 = softplus(rho) + epsilon

and mu = three 1x1 convolutions with ReLU between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.base import Example, FeatureLoss, Seen, mismatch
from sqakd.kd.shapes import is_map, to_smaller


def gaussian_loss(mean: Tensor, variance: Tensor, teacher: Tensor) -> Tensor:
    """Negative log-likelihood of the teacher's map, without its constant.

    Args:
        mean: [N, C, H, W].
        variance: [C].
        teacher: [N, C, H, W].

    Example:
        >>> import torch
        >>> float(gaussian_loss(torch.zeros(1, 1, 1, 1), torch.ones(1), torch.full((1, 1, 1, 1), 2.0)))
        2.0
    """
    variance = variance.float().view(1, -1, 1, 1)
    return ((mean.float() - teacher.float()).square() / variance + variance.log()).mean() / 2


class Guess(nn.Module):
    """Mean and variance of the teacher's map, from the student's.

    Args:
        inputs: channels of the student.
        outputs: channels of the teacher.
        variance: at the start.
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
        self.rho = nn.Parameter(torch.full((outputs,), math.log(math.expm1(variance - epsilon))))  # softplus backwards

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of one stage; the larger map is average-pooled to the smaller."""
        student, teacher = to_smaller(student.float(), teacher.float())
        return gaussian_loss(self.mean(student), F.softplus(self.rho) + self.epsilon, teacher)


class VariationalInformation(FeatureLoss):
    """Of every stage's output.

    Args:
        variance: of the guess, at the start.
        epsilon: lower bound of the variance.
    """

    guesses: nn.ModuleList

    def __init__(self, *, variance: float, epsilon: float) -> None:
        super().__init__()
        if not variance > epsilon > 0:
            raise ValueError(f"kd.feature_loss: variance={variance} is to be larger than epsilon={epsilon}, both > 0")
        self.variance, self.epsilon = variance, epsilon

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return list(layers[1:-1])

    def build(self, example: Example) -> None:
        self.guesses = nn.ModuleList()
        for name, student, teacher in zip(self.names, example.student, example.teacher, strict=True):
            if not (is_map(student) and is_map(teacher)):
                raise mismatch(self, name, student, teacher, "two maps [C, H, W]")
            channels = {"inputs": student.shape[1], "outputs": teacher.shape[1]}
            self.guesses.append(Guess(**channels, variance=self.variance, epsilon=self.epsilon))

    def forward(self, seen: Seen) -> list[Tensor]:
        return [guess(s, t) for guess, s, t in zip(self.guesses, seen.student, seen.teacher, strict=True)]

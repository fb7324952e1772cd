r"""Correlation congruence (CC): how images relate to each other, between learned embeddings.

Paper: Peng et al. 2019, "Correlation Congruence for Knowledge Distillation" (https://arxiv.org/abs/1904.01802). The
paper compares the kernel matrices of a batch. What SQAKD's Table 7 calls CC is something else, and so is this: with
e = a linear embedding of each image, of the student and of the teacher,

    delta_i = |e_i(student) - e_i(teacher)|,     loss = mean over i of  delta_i . delta_(i+1)

so two neighbours in the batch count where both are off. Both embeddings are trained.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sqakd.kd.base import Example, FeatureLoss, Seen, mismatch
from sqakd.kd.shapes import vector


def correlation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean product of the deviations of neighbouring images.

    Args:
        student: embeddings [N, D].
        teacher: [N, D].

    Example:
        >>> import torch
        >>> float(correlation_loss(torch.tensor([[1.0], [2.0], [3.0]]), torch.zeros(3, 1)))
        4.0
    """
    delta = (student.float() - teacher.float()).abs()
    return (delta[1:] * delta[:-1]).sum() / max(len(delta) - 1, 1)  # a batch of one image has no neighbours


class CorrelationCongruence(FeatureLoss):
    """Of the pooled vector.

    Args:
        width: of the embeddings.
    """

    student: nn.Linear
    teacher: nn.Linear

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.width = width

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return [layers[-1]]

    def build(self, example: Example) -> None:
        (name,), (student,), (teacher,) = self.names, example.student, example.teacher
        if vector(student).ndim != 2 or vector(teacher).ndim != 2:
            raise mismatch(self, name, student, teacher, "two vectors [D] or maps [C, H, W]")
        self.student = nn.Linear(vector(student).shape[1], self.width)
        self.teacher = nn.Linear(vector(teacher).shape[1], self.width)

    def forward(self, seen: Seen) -> list[Tensor]:
        student, teacher = vector(seen.student[0]).float(), vector(seen.teacher[0]).float()
        return [correlation_loss(self.student(student), self.teacher(teacher))]

r"""Correlation congruence (CC), as in SQAKD's Table 7: deviations of neighbouring images, between learned embeddings.

Paper: Peng et al. 2019, "Correlation Congruence for Knowledge Distillation" (https://arxiv.org/abs/1904.01802).

Where this differs: the paper compares the kernel matrices of a batch. SQAKD's Table 7 uses another loss under the name
CC, and so does this file. With e_i = a linear embedding of image i [D], one of the student's vector and one of the
teacher's,

    delta_i = |e_i(student) - e_i(teacher)|,     loss = mean over i of  delta_i . delta_(i+1)

The loss is large where two neighbours in the batch deviate in the same elements. Both embeddings are trained.
"""

from __future__ import annotations

from torch import Tensor, nn

from sqakd.kd.base import FeatureBatch, SetupInfo
from sqakd.kd.inputs import PooledVector
from sqakd.kd.shapes import vector
from sqakd.numbers import check_whole


def correlation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean product of the deviations of neighbouring images.

    Args:
        student: [N, D], embeddings.
        teacher: [N, D].

    Example:
        >>> import torch
        >>> float(correlation_loss(torch.tensor([[1.0], [2.0], [3.0]]), torch.zeros(3, 1)))
        4.0
    """
    delta = (student.float() - teacher.float()).abs()
    return (delta[1:] * delta[:-1]).sum() / max(len(delta) - 1, 1)  # a batch of one image has no neighbours: loss 0


class CorrelationCongruence(PooledVector):
    """Correlation congruence at the pooled vector.

    Args:
        width: width of the embeddings (D).

    Raises:
        SqakdError: if the width is not a whole number of at least 1.
    """

    student: nn.Linear
    teacher: nn.Linear

    def __init__(self, *, width: int) -> None:
        super().__init__()
        check_whole("width", width)
        self.width = width

    def setup(self, info: SetupInfo) -> None:
        super().setup(info)
        self.student = nn.Linear(vector(info.student[0]).shape[1], self.width)
        self.teacher = nn.Linear(vector(info.teacher[0]).shape[1], self.width)

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        student, teacher = vector(batch.student[0]).float(), vector(batch.teacher[0]).float()
        return [correlation_loss(self.student(student), self.teacher(teacher))]

r"""DIST: the student should match the relations between the teacher's probabilities, not the probabilities themselves.

Paper: Huang, You, Wang, Qian, Xu 2022, "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022
(https://arxiv.org/abs/2205.10536). With p = softmax(z / T) [N, classes] and r the Pearson correlation,

    inter = 1 - mean over images n of   r(p_s[n, :], p_t[n, :])
    intra = 1 - mean over classes c of  r(p_s[:, c], p_t[:, c])
    loss  = T^2 (beta inter + gamma intra)

Both terms ignore the mean and the scale of the student's probabilities, as every correlation does.

A row or column that hardly varies has no defined correlation. This happens when the student's output does not depend
on the image, and in a last batch with a single image. A length below 1e-3 is therefore replaced by 1e-3: such rows
have a correlation near 0 and bounded gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch, FeatureLoss, SetupInfo
from sqakd.numbers import check_not_negative, check_positive

SMALLEST_LENGTH = 1e-3


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return the Pearson correlation of each pair of rows, from -1 to 1; 0 for a row without variation.

    Args:
        a: [N, M].
        b: [N, M].

    Returns:
        [N].

    Example:
        >>> a = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
        >>> b = torch.tensor([[3.0, 5.0, 7.0], [6.0, 4.0, 2.0], [3.0, 5.0, 7.0]])
        >>> [round(r, 4) for r in correlation(a, b).tolist()]
        [1.0, -1.0, 0.0]
    """
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    # The clamp comes before the square root, whose slope at 0 is infinite.
    lengths = [x.square().sum(dim=1).clamp_min(SMALLEST_LENGTH**2).sqrt() for x in (a, b)]
    return (a * b).sum(dim=1) / (lengths[0] * lengths[1])


def relations(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the terms (inter, intra), without their weights and without T^2.

    Args:
        student_logits: [N, classes].
        teacher_logits: [N, classes]; no gradient flows to them.
        temperature: T.
    """
    student = torch.softmax(student_logits.float() / temperature, dim=1)
    teacher = torch.softmax(teacher_logits.detach().float() / temperature, dim=1)
    inter = 1 - correlation(student, teacher).mean()
    intra = 1 - correlation(student.T, teacher.T).mean()
    return inter, intra


class RelationMatching(FeatureLoss):
    """The loss of DIST. It compares logits only, and no layer before them.

    Args:
        inter: weight of the relations between the classes of an image (beta).
        intra: weight of the relations between the images for a class (gamma).
        temperature: temperature of the probabilities.

    Raises:
        SqakdError: if a weight is negative or both are zero, or if the temperature is not positive.
    """

    uses_layers = False

    def __init__(self, *, inter: float, intra: float, temperature: float) -> None:
        super().__init__()
        check_not_negative("inter", inter)
        check_not_negative("intra", intra)
        if not inter + intra > 0:
            raise SqakdError(f"inter={inter} intra={intra}: expected at least one positive weight")
        check_positive("temperature", temperature)
        self.inter, self.intra, self.temperature = inter, intra, temperature

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return []

    def setup(self, info: SetupInfo) -> None:
        self.names = ["logits of an image", "logits of a class"]

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        inter, intra = relations(batch.student_logits, batch.teacher_logits, temperature=self.temperature)
        return [self.temperature**2 * self.inter * inter, self.temperature**2 * self.intra * intra]

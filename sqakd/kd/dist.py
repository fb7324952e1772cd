r"""DIST: the student keeps the teacher's relations between classes and between images, not its probabilities.

Paper: Huang, You, Wang, Qian, Xu 2022, "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022
(https://arxiv.org/abs/2205.10536). With p = softmax(z / T), rows of images and columns of classes, and r the Pearson
correlation:

    inter = 1 - mean over images n of   r(p_s[n, :], p_t[n, :])
    intra = 1 - mean over classes c of  r(p_s[:, c], p_t[:, c])
    loss  = T^2 (beta inter + gamma intra)

Both are blind to another mean and another scale of the student's probabilities. Lengths below 1e-3 count as 1e-3, so
that rows and columns that hardly vary (of a network that tells nothing apart; of a last batch with a single image)
correlate with nothing and have bounded gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sqakd.kd.base import Example, FeatureLoss, Seen

SMALLEST_LENGTH = 1e-3


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of each row of two matrices [N, M] -> [N], -1 .. 1; 0 for a row without variation.

    Example:
        >>> a = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
        >>> b = torch.tensor([[3.0, 5.0, 7.0], [6.0, 4.0, 2.0], [3.0, 5.0, 7.0]])
        >>> [round(r, 4) for r in correlation(a, b).tolist()]
        [1.0, -1.0, 0.0]
    """
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    lengths = [x.square().sum(dim=1).clamp_min(SMALLEST_LENGTH**2).sqrt() for x in (a, b)]
    return (a * b).sum(dim=1) / (lengths[0] * lengths[1])


def relations(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """(inter, intra) of logits [N, classes], without weights and T^2; the teacher's count as constants."""
    student = torch.softmax(student_logits.float() / temperature, dim=1)
    teacher = torch.softmax(teacher_logits.detach().float() / temperature, dim=1)
    inter = 1 - correlation(student, teacher).mean()
    intra = 1 - correlation(student.T, teacher.T).mean()
    return inter, intra


class RelationMatching(FeatureLoss):
    """DIST's loss; it looks at the logits only, at no layer before them.

    Args:
        inter: weight of the relations within an image.
        intra: weight of the relations within a class.
        temperature: of the probabilities.
    """

    looks_inside = False

    def __init__(self, *, inter: float, intra: float, temperature: float) -> None:
        super().__init__()
        if min(inter, intra) < 0 or inter + intra <= 0:
            raise ValueError(
                f"kd.feature_loss: inter={inter} intra={intra}: expected none negative and at least one positive"
            )
        if not temperature > 0:
            raise ValueError(f"kd.feature_loss.temperature={temperature}: expected a positive number")
        self.inter, self.intra, self.temperature = inter, intra, temperature

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return []

    def build(self, example: Example) -> None:
        self.names = ["logits of an image", "logits of a class"]

    def forward(self, seen: Seen) -> list[Tensor]:
        inter, intra = relations(seen.student_logits, seen.teacher_logits, temperature=self.temperature)
        return [self.temperature**2 * self.inter * inter, self.temperature**2 * self.intra * intra]

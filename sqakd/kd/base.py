r"""What the student is trained on: a weighted sum of the label's and the teacher's word.

    total = ce * CE(student, label) + kl * KL_T(student || teacher)

SQAKD is ce = 0, kl = 1: no label is ever read.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.kl import distillation_kl


class Objective(nn.Module):
    """Weights of the loss parts; a part of weight 0 is not computed.

    Args:
        ce: weight of the cross-entropy with the labels (gamma in SQAKD's code).
        kl: weight of the KL divergence to the teacher (alpha).
        temperature: of the KL divergence.
        label_smoothing: share of the label's weight that is spread evenly over all classes.

    Raises:
        ValueError: if a weight is negative or all are zero, or the temperature is not positive.
    """

    def __init__(self, *, ce: float, kl: float, temperature: float, label_smoothing: float) -> None:
        super().__init__()
        if min(ce, kl) < 0 or ce + kl <= 0:
            raise ValueError(f"kd weights ce={ce} kl={kl}: expected none negative and at least one positive")
        if not temperature > 0:
            raise ValueError(f"kd temperature={temperature}: expected a positive number; SQAKD uses 4")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"kd label_smoothing={label_smoothing}: expected a number from 0 to below 1")
        self.ce, self.kl, self.temperature, self.label_smoothing = ce, kl, temperature, label_smoothing

    @property
    def needs_labels(self) -> bool:
        return self.ce > 0

    @property
    def needs_teacher(self) -> bool:
        return self.kl > 0

    def forward(self, student_logits: Tensor, teacher_logits: Tensor | None, label: Tensor | None) -> dict[str, Tensor]:
        """Named loss parts, unweighted, and their weighted sum under "loss".

        Args:
            student_logits: [N, classes].
            teacher_logits: [N, classes], or None if no part needs them.
            label: [N] class indices, or None if no part needs them.
        """
        parts: dict[str, Tensor] = {}
        total = student_logits.new_zeros(())
        if self.needs_labels:
            assert label is not None
            parts["ce"] = F.cross_entropy(student_logits.float(), label, label_smoothing=self.label_smoothing)
            total = total + self.ce * parts["ce"]
        if self.needs_teacher:
            assert teacher_logits is not None
            parts["kl"] = distillation_kl(student_logits, teacher_logits, temperature=self.temperature)
            total = total + self.kl * parts["kl"]
        return {"loss": total, **parts}

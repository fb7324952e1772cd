r"""What the student is trained on: a weighted sum of the label's and the teacher's word.

    total = ce * CE(student, label) + kl * KL_T(student || teacher) + feature * (sum of a feature loss's terms)

SQAKD is ce = 0, kl = 1, feature = 0: no label is ever read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.base import FeatureLoss, Seen
from sqakd.kd.kl import distillation_kl


class Objective(nn.Module):
    """Weights of the loss parts; a part of weight 0 is not computed.

    Args:
        ce: weight of the cross-entropy with the labels (gamma in SQAKD's code).
        kl: weight of the KL divergence to the teacher (alpha).
        feature: weight of the feature loss (beta).
        temperature: of the KL divergence.
        standardize: whether the KL divergence compares logits with mean 0 and standard deviation 1.
        label_smoothing: share of the label's weight that is spread evenly over all classes.
        feature_loss: what is compared besides the logits, or None.

    Raises:
        ValueError: if a weight is negative or all are zero, the temperature is not positive, or `feature` and
            `feature_loss` contradict each other.
    """

    def __init__(
        self,
        *,
        ce: float,
        kl: float,
        feature: float,
        temperature: float,
        standardize: bool,
        label_smoothing: float,
        feature_loss: FeatureLoss | None,
    ) -> None:
        super().__init__()
        if min(ce, kl, feature) < 0 or ce + kl + feature <= 0:
            raise ValueError(
                f"kd weights ce={ce} kl={kl} feature={feature}: expected none negative and at least one positive"
            )
        if feature > 0 and feature_loss is None:
            raise ValueError(f"kd.feature={feature} is the weight of a feature loss and this kd has none; type kd=at")
        if not temperature > 0:
            raise ValueError(f"kd temperature={temperature}: expected a positive number; SQAKD uses 4")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"kd label_smoothing={label_smoothing}: expected a number from 0 to below 1")
        self.ce, self.kl, self.feature = ce, kl, feature
        self.temperature, self.standardize, self.label_smoothing = temperature, standardize, label_smoothing
        # A stage before the training needs the loss even where the training itself gives it no weight (FSP).
        staged = feature_loss is not None and feature_loss.pretrain_epochs > 0
        self.feature_loss = feature_loss if feature > 0 or staged else None

    @property
    def needs_labels(self) -> bool:
        return self.ce > 0 or (self.feature_loss is not None and self.feature_loss.needs_labels)

    @property
    def needs_teacher(self) -> bool:
        return self.asks_teacher or self.feature_loss is not None

    @property
    def asks_teacher(self) -> bool:
        """Whether the steps need the teacher; a stage before them may be all that does."""
        return self.kl > 0 or self.feature > 0

    @property
    def parts(self) -> list[str]:
        """Names of the parts that are computed."""
        return [part for part in ("ce", "kl", "feature") if getattr(self, part) > 0]

    def draw(self, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Random numbers of one step for the feature loss, on the device of `index`."""
        return {} if self.feature_loss is None else self.feature_loss.draw(index, generator)

    def remember(self) -> None:
        """Called once per batch, when its gradients are there."""
        if self.feature_loss is not None:
            self.feature_loss.remember()

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        label: Tensor | None,
        seen: Seen | None = None,
    ) -> dict[str, Tensor]:
        """Named loss parts, unweighted, and their weighted sum under "loss".

        Args:
            student_logits: [N, classes].
            teacher_logits: [N, classes], or None if no part needs them.
            label: [N] class indices, or None if no part needs them.
            seen: features, or None if no part needs them.
        """
        parts: dict[str, Tensor] = {}
        if self.ce > 0:
            assert label is not None
            parts["ce"] = F.cross_entropy(student_logits.float(), label, label_smoothing=self.label_smoothing)
        if self.kl > 0:
            assert teacher_logits is not None
            parts["kl"] = distillation_kl(
                student_logits, teacher_logits, temperature=self.temperature, standardize=self.standardize
            )
        if self.feature > 0:
            assert seen is not None
            assert self.feature_loss is not None
            # Features may come in bfloat16; what is made of them is computed in float32.
            with torch.autocast(student_logits.device.type, enabled=False):
                parts["feature"] = torch.stack(self.feature_loss(seen)).sum()
        total = sum((getattr(self, name) * part for name, part in parts.items()), student_logits.new_zeros(()))
        return {"loss": total, **parts}

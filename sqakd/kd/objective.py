r"""The training objective of the student: a weighted sum of cross-entropy, KL divergence and feature loss.

    total = ce * CE(student, label) + kl * KL_T(teacher || student) + feature * (sum of the feature loss's terms)

SQAKD is ce = 0, kl = 1, feature = 0, so it reads no label.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch, FeatureLoss
from sqakd.kd.kl import check_temperature, distillation_kl
from sqakd.numbers import check_share


class Objective(nn.Module):
    """The loss of a training step. A part of weight 0 is not computed.

    Args:
        ce: weight of the cross-entropy with the labels (gamma in SQAKD's code).
        kl: weight of the KL divergence to the teacher (alpha).
        feature: weight of the feature loss (beta).
        temperature: temperature of the KL divergence; 4 in SQAKD.
        standardize: standardize the logits of each image to mean 0 and standard deviation 1 before the KL divergence.
        label_smoothing: share of the label's weight that is spread evenly over all classes.
        feature_loss: loss on features of student and teacher, or None.

    Raises:
        SqakdError: if a weight is negative or all are zero, if the temperature is not positive, if `label_smoothing`
            is not in [0, 1), or if `feature` is positive without a `feature_loss`.
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
            raise SqakdError(
                f"loss weights ce={ce} kl={kl} feature={feature}: expected none negative and at least one positive"
            )
        if feature > 0 and feature_loss is None:
            raise SqakdError(
                f"feature={feature} is the weight of a feature loss, but feature_loss is None",
                topic="kd.no_feature_loss",
            )
        check_temperature(temperature)
        check_share("label_smoothing", label_smoothing)
        self.ce, self.kl, self.feature = ce, kl, feature
        self.temperature, self.standardize, self.label_smoothing = temperature, standardize, label_smoothing
        # A stage before the training needs the feature loss even if the training itself gives it weight 0 (FSP).
        staged = feature_loss is not None and feature_loss.has_stage
        self.feature_loss = feature_loss if feature > 0 or staged else None

    def extra_repr(self) -> str:
        keys = ("ce", "kl", "feature", "temperature", "standardize", "label_smoothing")
        return ", ".join(f"{key}={getattr(self, key)}" for key in keys)

    @property
    def needs_labels(self) -> bool:
        return self.ce > 0 or (self.feature_loss is not None and self.feature_loss.needs_labels)

    @property
    def needs_teacher(self) -> bool:
        """True if the training steps or the stage before them use the teacher."""
        return self.needs_teacher_each_step or self.feature_loss is not None

    @property
    def needs_teacher_each_step(self) -> bool:
        """True if the training steps use the teacher."""
        return self.kl > 0 or self.feature > 0

    @property
    def parts(self) -> list[str]:
        """Names of the parts with a positive weight, which are the parts that are computed."""
        return [part for part in ("ce", "kl", "feature") if getattr(self, part) > 0]

    def draw(self, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw the feature loss's random numbers of one step; see `FeatureLoss.draw`."""
        return {} if self.feature_loss is None else self.feature_loss.draw(index, generator)

    def after_backward(self) -> None:
        """Let the feature loss update its state; to be called once per batch, after the backward pass."""
        if self.feature_loss is not None:
            self.feature_loss.after_backward()

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        label: Tensor | None,
        batch: FeatureBatch | None = None,
    ) -> dict[str, Tensor]:
        """Return the unweighted parts by name, and their weighted sum under "loss".

        Args:
            student_logits: [N, classes].
            teacher_logits: [N, classes], or None if no part needs them.
            label: [N], class indices, or None if no part needs them.
            batch: features of the images, or None if no part needs them.
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
            assert batch is not None
            assert self.feature_loss is not None
            # Features may be bfloat16 under mixed precision, which is too coarse for squares and small differences.
            with torch.autocast(student_logits.device.type, enabled=False):
                parts["feature"] = torch.stack(self.feature_loss(batch)).sum()
        total = sum((getattr(self, name) * part for name, part in parts.items()), student_logits.new_zeros(()))
        return {"loss": total, **parts}

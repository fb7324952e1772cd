"""Metrics of a training: means of the loss parts, and scores on the validation images."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from sqakd.kd.kl import distillation_kl


class Mean(MeanMetric):
    """A mean over images, without the check for NaN that would wait for the device at every step.

    torchmetrics' own switch for that check drops the weights
    (https://github.com/Lightning-AI/torchmetrics/issues/3434).
    """

    def update(self, value: Tensor, weight: int) -> None:  # type: ignore[override]
        self.mean_value += value * weight
        self.weight += weight


def saved_mean() -> Mean:
    """Return a mean that checkpoints include, so that an epoch resumed half-way still reports its whole mean."""
    mean = Mean()
    mean.persistent(True)
    return mean


class Means(nn.ModuleDict):
    """Means of named losses over the images of an epoch.

    Args:
        names: losses to average.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__({name: saved_mean() for name in names})

    def add(self, losses: dict[str, Tensor], images: int) -> None:
        """Add a batch: its losses, each a mean over the batch, and its number of images."""
        for name, mean in self.items():
            mean.update(losses[name].detach(), weight=images)  # type: ignore[operator]

    def compute(self) -> dict[str, Tensor]:
        """Return the mean of each loss."""
        return {name: mean.compute() for name, mean in self.items()}  # type: ignore[operator]

    def reset(self) -> None:
        """Forget all batches."""
        for mean in self.values():
            mean.reset()  # type: ignore[operator]


class Scores(nn.ModuleDict):
    """Validation scores of a student, as far as labels and teacher allow.

    With labels: top-1 and top-5 accuracy (the highest k where there are fewer than five classes). With a teacher:
    agreement, which is the share of images on which both predict the same class, and the KL divergence.

    Args:
        num_classes: width of the logits.
        labelled: whether the images have labels.
        has_teacher: whether there is a teacher.
        temperature: of the KL divergence.
    """

    def __init__(self, *, num_classes: int, labelled: bool, has_teacher: bool, temperature: float) -> None:
        scores: dict[str, Metric] = {}
        if labelled:
            most = min(5, num_classes)
            for name, k in (("top1", 1), (f"top{most}", most)):
                scores[name] = MulticlassAccuracy(num_classes, top_k=k, average="micro", validate_args=False)
        if has_teacher:
            scores["agreement"] = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
            scores["val_kl"] = Mean()
        super().__init__(scores)
        self.temperature = temperature

    def add(self, logits: Tensor, teacher_logits: Tensor | None, label: Tensor | None) -> None:
        """Add a batch.

        Args:
            logits: student logits [N, classes].
            teacher_logits: [N, classes], or None without a teacher.
            label: [N], or None without labels.
        """
        for name, score in self.items():
            if name.startswith("top"):
                score.update(logits, label)  # type: ignore[operator]
        if teacher_logits is not None:
            self["agreement"].update(logits, teacher_logits.argmax(dim=1))  # type: ignore[operator]
            kl = distillation_kl(logits, teacher_logits, temperature=self.temperature)
            self["val_kl"].update(kl, weight=len(logits))  # type: ignore[operator]

    def take(self) -> dict[str, Tensor]:
        """Return the scores by their logged names, and forget all batches."""
        values = {}
        for name, score in self.items():
            values[f"val/{name.removeprefix('val_')}"] = score.compute()  # type: ignore[operator]
            score.reset()  # type: ignore[operator]
        return values

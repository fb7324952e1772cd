"""A CRD loss small enough for unit tests: 60 training images, embeddings of width 8, 6 negatives per image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sqakd.kd.base import FeatureBatch, SetupInfo
from sqakd.kd.contrastive import ContrastiveDistillation

# 30 images of class 0, and 10 each of classes 1, 2 and 3.
LABELS = torch.arange(60) % 4 * (torch.arange(60) % 3 != 0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def setup_info(labels: Tensor | None) -> SetupInfo:
    """Facts for features [N, 5] of the student and [N, 7] of the teacher."""
    return SetupInfo(student=[random(2, 5)], teacher=[random(2, 7)], training_images=60, labels=labels)


def crd(**changes: float) -> ContrastiveDistillation:
    """Return the loss after `setup`, always with the same initial values."""
    arguments: dict[str, Any] = {"width": 8, "negatives": 6, "temperature": 0.1, "momentum": 0.5}
    torch.manual_seed(0)
    loss = ContrastiveDistillation(**arguments | changes)
    loss.names = ["pooled"]
    loss.setup(setup_info(LABELS))
    return loss


def feature_batch(student: Tensor, teacher: Tensor, index: Tensor, draws: dict[str, Tensor]) -> FeatureBatch:
    """Return a batch without logits, which CRD does not use."""
    nothing = torch.empty(0)
    return FeatureBatch([student], [teacher], nothing, nothing, index, draws)


def step(loss: ContrastiveDistillation, index: Tensor, number: int) -> Tensor:
    """Take a training step that changes nothing but the memory banks; return the loss.

    Args:
        loss: a loss after `setup`.
        index: [N], images of the batch.
        number: number of the step, which seeds its negatives.
    """
    student, teacher = random(60, 5, seed=1)[index], random(60, 7, seed=2)[index]
    draws = loss.draw(index, torch.Generator().manual_seed(number))
    value: Tensor = loss(feature_batch(student, teacher, index, draws))[0]
    loss.after_backward()
    return value.detach()

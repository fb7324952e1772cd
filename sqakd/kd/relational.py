r"""Relational knowledge distillation (RKD): the images' distances and angles, not their features, are passed on.

Paper: Park, Kim, Lu, Cho 2019, "Relational Knowledge Distillation" (https://arxiv.org/abs/1904.05068). With one
vector per image,

    d_ij = |x_i - x_j| / (their mean over all pairs),     c_ijk = cos of the angle at x_j between x_i and x_k,

and the Huber distance (smooth L1) between the student's and the teacher's of each, mean over all pairs and triples,
those with an image twice included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.base import Example, FeatureLoss, Seen, mismatch
from sqakd.kd.shapes import vector


def differences(x: Tensor) -> Tensor:
    """From each image to each other, [N, D] -> [N, N, D]."""
    x = x.float()
    return x.unsqueeze(0) - x.unsqueeze(1)


def distances(difference: Tensor) -> Tensor:
    """Lengths in units of the mean over all pairs of two images, [N, N, D] -> [N, N].

    Example:
        >>> import torch
        >>> distances(differences(torch.tensor([[0.0], [1.0], [2.0]])))[0].tolist()
        [0.0, 0.75, 1.5]
    """
    n = len(difference)
    # The root has no slope at 0: equal images get a tiny distance, and an image has none to itself.
    others = 1 - torch.eye(n, device=difference.device)
    length = difference.square().sum(dim=2).clamp_min(1e-12).sqrt() * others
    mean = length.sum() / max(n * (n - 1), 1)
    return length / mean.clamp_min(1e-6)  # a batch of one image has no pairs


def angles(difference: Tensor) -> Tensor:
    """Cosines of the angles of all triples, [N, N, D] -> [N, N, N]; the first image is the corner."""
    direction = F.normalize(difference, dim=2)
    return direction @ direction.transpose(1, 2)


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 between the distances of [N, D] and of [N, D']."""
    return F.smooth_l1_loss(distances(differences(student)), distances(differences(teacher)))


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 between the angles of [N, D] and of [N, D']."""
    return F.smooth_l1_loss(angles(differences(student)), angles(differences(teacher)))


class RelationalDistillation(FeatureLoss):
    """Of the pooled vector.

    Args:
        distance: weight of the distances.
        angle: weight of the angles.
    """

    def __init__(self, *, distance: float, angle: float) -> None:
        super().__init__()
        self.distance, self.angle = distance, angle

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return [layers[-1]]

    def build(self, example: Example) -> None:
        (name,), (student,), (teacher,) = self.names, example.student, example.teacher
        if vector(student).ndim != 2 or vector(teacher).ndim != 2:
            raise mismatch(self, name, student, teacher, "two vectors [D] or maps [C, H, W]")
        self.names = [f"{name} (distances)", f"{name} (angles)"]

    def forward(self, seen: Seen) -> list[Tensor]:
        student, teacher = vector(seen.student[0]), vector(seen.teacher[0])
        return [self.distance * distance_loss(student, teacher), self.angle * angle_loss(student, teacher)]

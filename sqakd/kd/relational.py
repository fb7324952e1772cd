r"""Relational knowledge distillation (RKD): the student should reproduce distances and angles between images.

Paper: Park, Kim, Lu, Cho 2019, "Relational Knowledge Distillation" (https://arxiv.org/abs/1904.05068). With one
vector x_i per image,

    d_ij  = |x_i - x_j| / (mean of |x_i - x_j| over all pairs of two images)
    c_ijk = cosine of the angle at x_j between x_i and x_k

The loss is the Huber distance (smooth L1) between the student's and the teacher's d and c, averaged over all pairs and
triples, including those that contain an image twice.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch, SetupInfo
from sqakd.kd.inputs import PooledVector
from sqakd.kd.shapes import vector
from sqakd.numbers import check_not_negative


def differences(x: Tensor) -> Tensor:
    """Return the differences between all images of a batch, [N, D] -> [N, N, D]; entry [i, j] is x_j - x_i."""
    x = x.float()
    return x.unsqueeze(0) - x.unsqueeze(1)


def distances(difference: Tensor) -> Tensor:
    """Return the distances between all images, in units of their mean.

    Args:
        difference: [N, N, D], from `differences`.

    Returns:
        [N, N], with zeros on the diagonal.

    Example:
        >>> import torch
        >>> distances(differences(torch.tensor([[0.0], [1.0], [2.0]])))[0].tolist()
        [0.0, 0.75, 1.5]
    """
    n = len(difference)
    # The square root has an infinite slope at 0. The clamp keeps the gradient finite where two images have equal
    # vectors, and the mask restores the zeros on the diagonal.
    others = 1 - torch.eye(n, device=difference.device)
    length = difference.square().sum(dim=2).clamp_min(1e-12).sqrt() * others
    mean = length.sum() / max(n * (n - 1), 1)
    return length / mean.clamp_min(1e-6)  # a batch of one image has no pairs, so its mean is 0


def angles(difference: Tensor) -> Tensor:
    """Return the cosines of the angles of all triples.

    Args:
        difference: [N, N, D], from `differences`.

    Returns:
        [N, N, N]; the angle of entry [j, i, k] has its corner at image j.
    """
    direction = F.normalize(difference, dim=2)
    return direction @ direction.transpose(1, 2)


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the smooth L1 distance between the distances of vectors [N, D] and of vectors [N, D']."""
    return F.smooth_l1_loss(distances(differences(student)), distances(differences(teacher)))


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the smooth L1 distance between the angles of vectors [N, D] and of vectors [N, D']."""
    return F.smooth_l1_loss(angles(differences(student)), angles(differences(teacher)))


class RelationalDistillation(PooledVector):
    """Relational distillation at the pooled vector.

    Args:
        distance: weight of the distances.
        angle: weight of the angles.

    Raises:
        SqakdError: if a weight is negative, or none is positive.
    """

    def __init__(self, *, distance: float, angle: float) -> None:
        super().__init__()
        check_not_negative("distance", distance)
        check_not_negative("angle", angle)
        if not distance + angle > 0:
            raise SqakdError(f"distance={distance} angle={angle}: expected at least one positive weight")
        self.distance, self.angle = distance, angle

    def setup(self, info: SetupInfo) -> None:
        super().setup(info)
        (name,) = self.names
        self.names = [f"{name} (distances)", f"{name} (angles)"]

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        student, teacher = vector(batch.student[0]), vector(batch.teacher[0])
        return [self.distance * distance_loss(student, teacher), self.angle * angle_loss(student, teacher)]

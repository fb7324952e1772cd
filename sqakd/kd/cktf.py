r"""Contrastive knowledge transfer (CKTF): CRD's loss on every stage of the network, not only on its last vector.

Paper: Zhao, Chen, Zhao 2023, "A Contrastive Knowledge Transfer Framework for Model Compression and Transfer Learning"
(https://arxiv.org/abs/2303.07599). With CRD(s, t) as in `contrastive`, each term with embeddings and a memory of its
own, over the first map, each stage's map and the pooled vector,

    loss = CRD(vector) + intermediate * (CRD(first map) + sum over stages of CRD(map))

A map is average-pooled and flattened, that of a stage also normalised: here each image's vector has length 1, which is
our reading, because the paper's own text was not at hand. SQAKD's release instead divides each element of the map by
its length over the *batch*, so that an image's feature depends on the images beside it (`normalise: batch`). It also
pads the narrower network's channels with zeros, which makes no difference to a linear embedding; here they are left as
they are. The teacher's map of a stage is its last block's output; teacher.feature_layers chooses others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from sqakd.kd.base import Example, Seen, mismatch
from sqakd.kd.contrastive import Contrastive
from sqakd.kd.shapes import is_map, vector

Normalise = Literal["image", "batch"]


def pooled(feature: Tensor, window: int | None) -> Tensor:
    """A map average-pooled and flattened.

    Args:
        feature: [N, C, H, W].
        window: side of the square that becomes one place; a map smaller than that, and any for None, becomes one place.

    Returns:
        [N, C * places].

    Example:
        >>> import torch
        >>> pooled(torch.ones(1, 3, 16, 16), 8).shape, pooled(torch.ones(1, 3, 4, 4), 8).shape
        (torch.Size([1, 12]), torch.Size([1, 3]))
    """
    height, width = feature.shape[2:]
    side = (height, width) if window is None else (min(window, height), min(window, width))
    return F.avg_pool2d(feature.float(), side).flatten(1)


def stage_vector(feature: Tensor, window: int | None, normalise: Normalise) -> Tensor:
    """What a term compares of a stage's map.

    Args:
        feature: [N, C, H, W].
        window: see `pooled`.
        normalise: "image": each image's pooled map has length 1; "batch": each element of the map has, over the batch.

    Returns:
        [N, C * places].
    """
    if normalise == "batch":
        return pooled(F.normalize(feature.float(), dim=0), window)
    return F.normalize(pooled(feature, window))


class ContrastiveTransfer(Contrastive):
    """Of the first map, every stage's output and the pooled vector.

    Args:
        width: of the embeddings.
        negatives: of each image (K).
        temperature: tau.
        momentum: of the memory.
        intermediate: weight of all terms but the last.
        window: side of the squares that maps are pooled in; None for the whole map.
        normalise: "image", or "batch" as in the release.

    Raises:
        ValueError: for a number or word that cannot be.
    """

    def __init__(
        self,
        *,
        width: int,
        negatives: int,
        temperature: float,
        momentum: float,
        intermediate: float,
        window: int | None,
        normalise: Normalise,
    ) -> None:
        super().__init__(width=width, negatives=negatives, temperature=temperature, momentum=momentum)
        if normalise not in ("image", "batch"):
            raise ValueError(f"kd.feature_loss.normalise={normalise!r}: expected image or batch")
        if window is not None and window < 1:
            raise ValueError(f"kd.feature_loss.window={window}: expected a whole number >= 1, or null")
        if not intermediate > 0:
            raise ValueError(f"kd.feature_loss.intermediate={intermediate}: expected a positive number, or type kd=crd")
        self.intermediate, self.window, self.normalise = intermediate, window, normalise

    def build(self, example: Example) -> None:
        pairs = list(zip(self.names, example.student, example.teacher, strict=True))
        for name, student, teacher in pairs[:-1]:
            if not (is_map(student) and is_map(teacher)):
                raise mismatch(self, name, student, teacher, "two maps [C, H, W]")
        name, student, teacher = pairs[-1]
        if vector(student).ndim != 2 or vector(teacher).ndim != 2:
            raise mismatch(self, name, student, teacher, "two vectors [D] or maps [C, H, W]")
        both = self.vectors(example.student), self.vectors(example.teacher)
        self.contrast([(s.shape[1], t.shape[1]) for s, t in zip(*both, strict=True)], example)

    def vectors(self, features: Sequence[Tensor]) -> list[Tensor]:
        """What the terms compare, each [N, D]; of the first map, the stages' maps and the last."""
        first, *stages, last = features
        maps = [stage_vector(stage, self.window, self.normalise) for stage in stages]
        return [pooled(first, self.window), *maps, vector(last)]

    def forward(self, seen: Seen) -> list[Tensor]:
        both = zip(self.vectors(seen.student), self.vectors(seen.teacher), strict=True)
        pairs = zip(self.contrasts, both, strict=True)
        *terms, last = [contrast(*pair, seen.index, seen.draws) for contrast, pair in pairs]
        return [*(self.intermediate * term for term in terms), last]

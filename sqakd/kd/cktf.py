r"""Contrastive knowledge transfer (CKTF): the CRD loss at every stage of the network, not only at its pooled vector.

Paper: Zhao, Chen, Zhao 2023, "A Contrastive Knowledge Transfer Framework for Model Compression and Transfer Learning"
(https://arxiv.org/abs/2303.07599). With CRD(f) = the loss of `contrastive` for one pair of features f, each with
embeddings and memory banks of its own,

    loss = CRD(pooled vector) + intermediate * (CRD(first map) + sum over stages of CRD(stage's map))

Every map is average-pooled and flattened to one vector per image. The map of a stage is normalised too.

Where this differs from SQAKD's release:

- Normalisation. Here the vector of each image is scaled to unit length. This is our reading of the method, because the
  paper's text was not available to us. The release divides each element of the map by its length over the *batch*, so
  an image's feature depends on the other images of its batch; normalise="batch" does the same.
- Channels. The release pads the channels of the narrower network with zeros. Here they are not padded, which makes no
  difference to a linear embedding.

The teacher's map of a stage is the output of the stage's last block, unless other feature layers are chosen for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch, SetupInfo
from sqakd.kd.contrastive import Contrastive
from sqakd.kd.inputs import check_maps, check_vectors
from sqakd.kd.shapes import vector
from sqakd.numbers import check_whole

Normalise = Literal["image", "batch"]


def pooled(feature: Tensor, window: int | None) -> Tensor:
    """Return a map average-pooled and flattened.

    Args:
        feature: [N, C, H, W].
        window: side of the square over which values are averaged; None, or a side larger than the map, averages over
            the whole map.

    Returns:
        [N, C * P], with P = the number of squares.

    Example:
        >>> import torch
        >>> pooled(torch.ones(1, 3, 16, 16), 8).shape, pooled(torch.ones(1, 3, 4, 4), 8).shape
        (torch.Size([1, 12]), torch.Size([1, 3]))
    """
    height, width = feature.shape[2:]
    side = (height, width) if window is None else (min(window, height), min(window, width))
    return F.avg_pool2d(feature.float(), side).flatten(1)


def stage_vector(feature: Tensor, window: int | None, normalise: Normalise) -> Tensor:
    """Return the normalised vector of each image that is compared at a stage.

    Args:
        feature: [N, C, H, W], map of the stage.
        window: see `pooled`.
        normalise: "image" scales the pooled vector of each image to unit length. "batch" scales each element of the
            map to unit length over the batch, before pooling.

    Returns:
        [N, C * P], see `pooled`.
    """
    if normalise == "batch":
        return pooled(F.normalize(feature.float(), dim=0), window)
    return F.normalize(pooled(feature, window))


class ContrastiveTransfer(Contrastive):
    """CKTF at the first map, the map of each stage and the pooled vector.

    Args:
        width: width of the embeddings.
        negatives: negatives per image (K).
        temperature: tau.
        momentum: weight of the old row in an update of the memory banks.
        intermediate: weight of all terms except that of the pooled vector.
        window: side of the squares over which maps are average-pooled; None for the whole map.
        normalise: "image", or "batch" as in the release; see `stage_vector`.

    Raises:
        SqakdError: if an argument is out of range.
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
            raise SqakdError(f"normalise={normalise!r}: expected image or batch")
        if window is not None:
            check_whole("window", window)
        if not intermediate > 0:
            raise SqakdError(f"intermediate={intermediate}: expected a number above 0", topic="kd.intermediate")
        self.intermediate, self.window, self.normalise = intermediate, window, normalise

    def setup(self, info: SetupInfo) -> None:
        *maps, last = self.pairs(info)
        check_maps(self, maps)
        check_vectors(self, [last])
        both = self.vectors(info.student), self.vectors(info.teacher)
        self.make_terms([(s.shape[1], t.shape[1]) for s, t in zip(*both, strict=True)], info)

    def vectors(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the vectors [N, D] that are compared, one for each tap; D differs between taps."""
        first, *stages, last = features
        maps = [stage_vector(stage, self.window, self.normalise) for stage in stages]
        return [pooled(first, self.window), *maps, vector(last)]

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        both = zip(self.vectors(batch.student), self.vectors(batch.teacher), strict=True)
        pairs = zip(self.contrasts, both, strict=True)
        *terms, last = [term(*pair, batch.index, batch.draws) for term, pair in pairs]
        return [*(self.intermediate * term for term in terms), last]

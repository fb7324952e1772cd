r"""Contrastive representation distillation (CRD), and the base class of the contrastive losses.

CRD pulls the student's embedding of an image towards the teacher's embedding of that image and away from the teacher's
embeddings of images of other classes. It does the same with student and teacher exchanged.

Paper: Tian, Krishnan, Isola 2020, "Contrastive Representation Distillation" (https://arxiv.org/abs/1910.10699). The
parts are in files of their own: `nce` has the loss, `contrastive_term` the embeddings and the partition function Z,
`memory` the memory banks, and `negatives` the draw of the negatives.

Where this differs: the images of a batch share one random order for their negatives, see `negatives`. Like the authors'
code, this loss has a partition function Z; the paper has none. The release adds 1e-7 to K/n in two places. This changes
the loss by less than one part in a thousand, and no gradient noticeably.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sqakd.errors import SqakdError
from sqakd.kd.base import FeatureBatch, FeatureLoss, SetupInfo
from sqakd.kd.contrastive_term import ContrastiveTerm
from sqakd.kd.inputs import check_vectors
from sqakd.kd.negatives import NegativeSampler
from sqakd.kd.shapes import vector
from sqakd.numbers import check_positive, check_share, check_whole


class Contrastive(FeatureLoss):
    """Base class of CRD and CKTF: a list of contrastive terms that share their negatives.

    Args:
        width: width of the embeddings.
        negatives: negatives per image (K).
        temperature: tau.
        momentum: weight of the old row in an update of the memory banks.

    Raises:
        SqakdError: if an argument is out of range.
    """

    needs_labels = True
    synchronizes_buffers = True
    contrasts: nn.ModuleList  # of ContrastiveTerm; the name is part of saved checkpoints
    sampler: NegativeSampler

    def __init__(self, *, width: int, negatives: int, temperature: float, momentum: float) -> None:
        super().__init__()
        check_whole("width", width)
        check_whole("negatives", negatives)
        check_positive("temperature", temperature)
        check_share("momentum", momentum)
        self.width, self.negatives, self.temperature, self.momentum = width, negatives, temperature, momentum

    def make_terms(self, widths: Sequence[tuple[int, int]], info: SetupInfo) -> None:
        """Create the sampler of negatives and one contrastive term for each pair of features.

        Args:
            widths: (width of the student's feature, width of the teacher's feature) of each pair.
            info: facts about the training set.

        Raises:
            SqakdError: if the training set has no labels, or a single class.
        """
        if info.labels is None:
            raise SqakdError(
                "a contrastive loss compares each image with images of other classes, but the data set has no labels",
                topic="kd.no_negatives",
            )
        self.sampler = NegativeSampler(info.labels, count=self.negatives)
        self.contrasts = nn.ModuleList(
            ContrastiveTerm(
                student=student,
                teacher=teacher,
                width=self.width,
                images=info.training_images,
                negatives=self.negatives,
                temperature=self.temperature,
                momentum=self.momentum,
            )
            for student, teacher in widths
        )

    def draw(self, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        for term in self.contrasts:
            term.check_z()  # type: ignore[operator]
        return self.sampler.draw(index, generator)

    def after_backward(self) -> None:
        for term in self.contrasts:
            term.update_memory()  # type: ignore[operator]


class ContrastiveDistillation(Contrastive):
    """CRD of the pooled vector."""

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return [layers[-1]]

    def setup(self, info: SetupInfo) -> None:
        check_vectors(self, self.pairs(info))
        self.make_terms([(vector(info.student[0]).shape[1], vector(info.teacher[0]).shape[1])], info)

    def forward(self, batch: FeatureBatch) -> list[Tensor]:
        student, teacher = vector(batch.student[0]), vector(batch.teacher[0])
        return [self.contrasts[0](student, teacher, batch.index, batch.draws)]

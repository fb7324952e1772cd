r"""Contrastive representation distillation (CRD): the teacher's word on an image, told from its word on others.

Paper: Tian, Krishnan, Isola 2020, "Contrastive Representation Distillation" (https://arxiv.org/abs/1910.10699).
Linear embeddings of length 1, s of the student and t of the teacher, are compared with what was remembered of the n
training images: s with the teacher's memory, t with the student's. For an anchor a, the memory m+ of its own image and
the memories m_1 .. m_K of images of other classes,

    P(m) = exp(a . m / tau) / Z,     loss = - log P(m+) / (P(m+) + K/n) - sum over k of  log (K/n) / (P(m_k) + K/n)

Z, which the authors' code has and their paper has not, is n times the mean of exp(a . m / tau) over the first batch, of
each side, and stays. With the logit u(m) = a . m / tau - log(Z K/n) this is the logistic loss of telling the image from
the others, the form that is computed here:

    loss = softplus(-u(m+)) + sum over k of softplus(u(m_k))

The loss is the sum of both sides, a mean over the batch. After each step a memory becomes the normalised
momentum * memory + (1 - momentum) * embedding. Both embeddings are trained.

Where this differs: the images of a batch share the draw of their negatives, see `negatives`. The release adds 1e-7 to
K/n in two places, which changes the value by less than one part in a thousand and no gradient noticeably.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.base import Example, FeatureLoss, Seen, mismatch
from sqakd.kd.memory import Memory, from_all_processes
from sqakd.kd.negatives import OtherClasses
from sqakd.kd.shapes import vector
from sqakd.numbers import is_number, is_whole


def contrastive_loss(own: Tensor, others: Tensor, chosen: Tensor, repeats: Tensor, log_odds: Tensor) -> Tensor:
    """Logistic loss of telling an image's own memory from those of others, mean over the batch.

    Args:
        own: [N], a . m / tau of each anchor with the memory of its own image.
        others: [N, M], the same with the memories of M candidates.
        chosen: [N, M], which candidates are an anchor's negatives.
        repeats: [N], how often each of them counts.
        log_odds: scalar, log(Z K/n).

    Example:
        >>> zero, yes, once = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), torch.ones(1)
        >>> round(float(contrastive_loss(zero[:, 0], zero, yes, once, torch.zeros(()))) / math.log(2), 5)
        4.0
    """
    negatives = (F.softplus(others - log_odds) * chosen).sum(dim=1)
    return (F.softplus(log_odds - own) + repeats * negatives).mean()


def log_normaliser(own: Tensor, others: Tensor, chosen: Tensor, repeats: Tensor, *, images: int) -> Tensor:
    """log Z: of n times the mean of exp(a . m / tau) over all positives and negatives of a batch.

    Args:
        own: [N], see `contrastive_loss`.
        others: [N, M].
        chosen: [N, M].
        repeats: [N].
        images: n.
    """
    counted = torch.where(chosen, others + repeats.log()[:, None], -math.inf)
    total = torch.cat([own, counted.flatten()]).logsumexp(dim=0)
    return total - (1 + repeats * chosen.sum(dim=1)).sum().log() + math.log(images)


class Contrast(nn.Module):
    """Both embeddings of one pair of features, and the memory of both.

    Args:
        student: width of the student's feature.
        teacher: width of the teacher's.
        width: of the embeddings.
        images: size of the training set (n).
        negatives: of each image (K).
        temperature: tau.
        momentum: of the memory.
    """

    log_z: Tensor

    def __init__(
        self,
        *,
        student: int,
        teacher: int,
        width: int,
        images: int,
        negatives: int,
        temperature: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self.images, self.temperature, self.odds = images, temperature, negatives / images
        self.student, self.teacher = nn.Linear(student, width), nn.Linear(teacher, width)
        self.student_memory = Memory(images=images, width=width, momentum=momentum)
        self.teacher_memory = Memory(images=images, width=width, momentum=momentum)
        # Of the student's anchors and of the teacher's; infinite until the first batch.
        self.register_buffer("log_z", torch.full((2,), math.inf))
        self.known = False
        self.pending: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def look(self) -> None:
        """Find out whether Z is known; waits for the device, so only until it is."""
        self.known = self.known or bool(self.log_z.isfinite().all())

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor, draws: dict[str, Tensor]) -> Tensor:
        """Loss of features [N, D] and [N, D'] of the images at `index`."""
        s, t = F.normalize(self.student(student.float())), F.normalize(self.teacher(teacher.float()))
        sides = [(s, self.teacher_memory.bank), (t, self.student_memory.bank)]
        losses, log_zs = [], []
        for side, (anchor, bank) in enumerate(sides):
            scaled = anchor / self.temperature
            own, others = (scaled * bank[index]).sum(dim=1), scaled @ bank[draws["candidates"]].T
            drawn = draws["chosen"], draws["repeats"]
            log_z = self.log_z[side]
            if not self.known:
                log_z = log_normaliser(own.detach(), others.detach(), *drawn, images=self.images)
            losses.append(contrastive_loss(own, others, *drawn, log_z + math.log(self.odds)))
            log_zs.append(log_z)
        self.pending = index, s.detach(), t.detach(), torch.stack(log_zs)
        return losses[0] + losses[1]

    @torch.no_grad()
    def remember(self) -> None:
        """Write the batch's embeddings into the memory, those of all processes; the first time also Z, their mean."""
        if self.pending is None:
            return
        (index, student, teacher, log_z), self.pending = self.pending, None
        index, student, teacher = from_all_processes(index, student, teacher)
        self.student_memory.update(index, student)
        self.teacher_memory.update(index, teacher)
        if not self.known:
            (log_zs,) = from_all_processes(log_z[None])
            self.log_z.copy_(log_zs.logsumexp(dim=0) - math.log(len(log_zs)))
            self.known = True


class Contrastive(FeatureLoss):
    """What CRD and its relatives share.

    Args:
        width: of the embeddings.
        negatives: of each image (K).
        temperature: tau.
        momentum: of the memory.

    Raises:
        ValueError: for a number that cannot be.
    """

    needs_labels = True
    keeps_buffers_equal = True
    contrasts: nn.ModuleList
    others: OtherClasses

    def __init__(self, *, width: int, negatives: int, temperature: float, momentum: float) -> None:
        super().__init__()
        for name, value, fine, wanted in (
            ("width", width, is_whole(width) and width >= 1, "a whole number >= 1"),
            ("negatives", negatives, is_whole(negatives) and negatives >= 1, "a whole number >= 1"),
            ("temperature", temperature, is_number(temperature) and 0 < temperature < math.inf, "a positive number"),
            ("momentum", momentum, is_number(momentum) and 0 <= momentum < 1, "a number from 0 to below 1"),
        ):
            if not fine:
                raise ValueError(f"kd.feature_loss.{name}={value!r}: expected {wanted}")
        self.width, self.negatives, self.temperature, self.momentum = width, negatives, temperature, momentum

    def contrast(self, pairs: Sequence[tuple[int, int]], example: Example) -> None:
        """Make a contrast for each pair of widths, of the student's and of the teacher's feature."""
        if example.labels is None:
            raise ValueError(
                "this kd compares each image with images of other classes and the data set has no labels; type"
                " kd=sqakd, which needs none"
            )
        self.others = OtherClasses(example.labels, count=self.negatives)
        self.contrasts = nn.ModuleList(
            Contrast(
                student=student,
                teacher=teacher,
                width=self.width,
                images=example.images,
                negatives=self.negatives,
                temperature=self.temperature,
                momentum=self.momentum,
            )
            for student, teacher in pairs
        )

    def draw(self, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        for contrast in self.contrasts:
            contrast.look()  # type: ignore[operator]
        return self.others.draw(index, generator)

    def remember(self) -> None:
        for contrast in self.contrasts:
            contrast.remember()  # type: ignore[operator]


class ContrastiveDistillation(Contrastive):
    """Of the pooled vector."""

    def taps(self, layers: Sequence[str], network: nn.Module) -> list[str]:
        return [layers[-1]]

    def build(self, example: Example) -> None:
        (name,), (student,), (teacher,) = self.names, example.student, example.teacher
        if vector(student).ndim != 2 or vector(teacher).ndim != 2:
            raise mismatch(self, name, student, teacher, "two vectors [D] or maps [C, H, W]")
        self.contrast([(vector(student).shape[1], vector(teacher).shape[1])], example)

    def forward(self, seen: Seen) -> list[Tensor]:
        student, teacher = vector(seen.student[0]), vector(seen.teacher[0])
        return [self.contrasts[0](student, teacher, seen.index, seen.draws)]

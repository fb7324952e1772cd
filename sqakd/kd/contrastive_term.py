"""One term of a contrastive loss: the embeddings of one pair of features, and their memory banks.

The features of student and teacher pass through one trained linear embedding each and are scaled to unit length: s and
t. Each network has a memory bank with the embeddings of all n training images (`memory`). With the loss NCE of an
anchor against a bank (`nce`) and K negatives per image (`negatives`),

    loss = NCE(anchor s, bank of the teacher) + NCE(anchor t, bank of the student)

Partition function Z: each side has its own. It is estimated from the first batch, as n times the mean of
exp(a . m / tau), and then stays constant.

Distributed training (DDP): each rank draws its own negatives and estimates Z from its own first batch; the stored Z is
the mean over ranks. The banks are equal on all ranks, see `memory`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.kd.memory import MemoryBank, gather_ranks
from sqakd.kd.nce import contrastive_loss, log_partition


class ContrastiveTerm(nn.Module):
    """CRD of one pair of features: the embeddings of student and teacher, and their memory banks.

    Args:
        student: width of the student's feature.
        teacher: width of the teacher's feature.
        width: width of the embeddings.
        images: size of the training set (n).
        negatives: negatives per image (K).
        temperature: tau.
        momentum: weight of the old row in an update of the memory banks.
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
        self.images, self.temperature, self.noise = images, temperature, negatives / images
        self.student, self.teacher = nn.Linear(student, width), nn.Linear(teacher, width)
        self.student_memory = MemoryBank(images=images, width=width, momentum=momentum)
        self.teacher_memory = MemoryBank(images=images, width=width, momentum=momentum)
        # log Z for the student's anchors and for the teacher's anchors; infinite until the first batch.
        self.register_buffer("log_z", torch.full((2,), math.inf))
        self.z_known = False
        # (index, student's embeddings, teacher's embeddings, log Z) of the latest batch, until `update_memory`.
        self.pending: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def check_z(self) -> None:
        """Set `z_known` if log Z is stored, from the first batch or from a checkpoint.

        Reading the buffer waits for the device, so this happens outside the compiled step, and no more once Z is known.
        """
        self.z_known = self.z_known or bool(self.log_z.isfinite().all())

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor, draws: dict[str, Tensor]) -> Tensor:
        """Return the loss of a batch.

        Args:
            student: [N, D], features.
            teacher: [N, D'], features.
            index: [N], positions of the images in the training set.
            draws: negatives, from `NegativeSampler.draw`.
        """
        s, t = F.normalize(self.student(student.float())), F.normalize(self.teacher(teacher.float()))
        # The banks are constants. The gradient reaches both embeddings and, through s, the student's network.
        sides = [(s, self.teacher_memory.bank), (t, self.student_memory.bank)]
        losses, log_zs = [], []
        for side, (anchor, bank) in enumerate(sides):
            scaled = anchor / self.temperature
            own, others = (scaled * bank[index]).sum(dim=1), scaled @ bank[draws["candidates"]].T
            drawn = draws["chosen"], draws["repeats"]
            log_z = self.log_z[side]
            if not self.z_known:
                log_z = log_partition(own.detach(), others.detach(), *drawn, images=self.images)
            losses.append(contrastive_loss(own, others, *drawn, log_z + math.log(self.noise)))
            log_zs.append(log_z)
        # The banks cannot be updated here: the backward pass still needs them as they are.
        self.pending = index, s.detach(), t.detach(), torch.stack(log_zs)
        return losses[0] + losses[1]

    @torch.no_grad()
    def update_memory(self) -> None:
        """Update the memory banks with the embeddings of the batch on all ranks, and store Z after the first batch.

        Without a forward pass since the latest update, nothing changes.
        """
        if self.pending is None:
            return
        (index, student, teacher, log_z), self.pending = self.pending, None
        index, student, teacher = gather_ranks(index, student, teacher)
        self.student_memory.update(index, student)
        self.teacher_memory.update(index, teacher)
        if not self.z_known:
            (log_zs,) = gather_ranks(log_z[None])  # [ranks, 2]
            self.log_z.copy_(log_zs.logsumexp(dim=0) - math.log(len(log_zs)))  # log of the mean of Z over ranks
            self.z_known = True

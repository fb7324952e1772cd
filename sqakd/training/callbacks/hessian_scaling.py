r"""Gradient scaling factors of EWGS from the curvature of the loss, estimated every few epochs.

Paper: Lee, Kim, Ham 2021 (https://arxiv.org/abs/2104.00903), section 3.3. For each quantized tensor q (in the unit
interval), with G the gradient of the loss with respect to q:

    delta = max(0, mean over batches of  (Tr(H) / numel(q)) / (3 std(G)))

`sqakd.quantization.curvature` estimates Tr(H) and std(G). Both belong to the mean loss of one training batch. For
weights, std(G) contains the noise of the batch and falls as the batch grows, while Tr(H) does not. The batch size is
therefore that of the training, as in the code of EWGS, which takes its batches from the training loader
(https://github.com/cvlab-yonsei/EWGS).

`slice_size` only bounds the memory: the gradients and products of the slices are added up. Batch norm in training mode
is the exception, because each slice has its own statistics. Measured on ResNet-20 W2A2 (digits at 16x16, batch of 256,
two probes, n = 1): relative to the whole batch, the sum of the factors of weights was 1.11 in slices of 64 and 1.24 in
slices of 32, but 0.48 with batches of 32. Those of inputs were 1.04, 1.07 and 1.11.

Where this differs from the published code: SQAKD's code never calls its estimate at all; the stopping rule divides by a
signed number and so stops at the first negative estimate; and the mean divides by a loop variable. Here the rule uses
magnitudes, the number of batches is explicit, and the curvature is that of the run's own objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor

from sqakd.dataset.batch import Batch
from sqakd.numbers import check_not_negative, check_positive, check_whole
from sqakd.quantization.curvature import Slice, estimate
from sqakd.quantization.layers import quantizers
from sqakd.quantization.probe import buffers_restored
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.rounding import ElementWiseGradientScaling
from sqakd.randomness import stream_seed
from sqakd.training.task import Task


@runtime_checkable
class ProbeSource(Protocol):
    """The part of a data module that the estimate reads."""

    def probe_batches(self, *, count: int, size: int, epoch: int) -> list[Batch]:
        """Return up to `count` batches of training images; see `ImageDataModule.probe_batches`."""


class HessianScaling(pl.Callback):
    """Estimates every `delta` that is set to "hessian", again every few epochs.

    Args:
        update_every: epochs between two estimates; the first is made after that many epochs.
        batches: training batches to average over.
        batch_size: images of each batch; the batch size of the training.
        slice_size: images to differentiate at a time, which bounds the memory.
        max_probes: largest number of random vectors per batch.
        tolerance: relative change of all running traces together below which to stop.
        epsilon: keeps divisions finite if gradients vanish.

    Raises:
        SqakdError: if a number is outside of its range.
    """

    def __init__(
        self,
        *,
        update_every: int,
        batches: int,
        batch_size: int,
        slice_size: int,
        max_probes: int,
        tolerance: float,
        epsilon: float,
    ) -> None:
        check_whole("update_every", update_every)
        check_whole("batches", batches)
        check_whole("batch_size", batch_size)
        check_whole("slice_size", slice_size)
        check_whole("max_probes", max_probes)
        check_not_negative("tolerance", tolerance)
        check_positive("epsilon", epsilon)
        self.update_every, self.batches, self.batch_size = update_every, batches, batch_size
        self.slice_size, self.max_probes = slice_size, max_probes
        self.tolerance, self.epsilon = tolerance, epsilon

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update the factors.

        Lightning does not call this again for an epoch that is resumed in its middle, so each estimate is made once.
        """
        if trainer.current_epoch == 0 or trainer.current_epoch % self.update_every:
            return
        assert isinstance(pl_module, Task)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ProbeSource)
        targets = [q for q in quantizers(pl_module.student) if _from_hessian(q)]
        if targets:
            probes = data.probe_batches(count=self.batches, size=self.batch_size, epoch=trainer.current_epoch)
            # An incomplete batch has another expectation; a data set below the batch size is one batch, as in training.
            whole = [batch for batch in probes if len(batch.image) == self.batch_size] or probes
            self.update(pl_module, targets, whole, trainer.current_epoch)

    def update(
        self,
        task: Task,
        targets: Sequence[Quantizer],
        batches: Sequence[Batch],
        epoch: int,
    ) -> None:
        """Write new factors; a tensor whose estimate is not finite keeps its former one.

        Args:
            task: task of the run, in training mode.
            targets: quantizers of the student with EWGS's rounding.
            batches: training batches.
            epoch: selects the random signs, together with the seed.
        """
        generator = torch.Generator().manual_seed(stream_seed(task.seed, epoch, "hessian"))
        total = torch.zeros(len(targets), device=task.device)
        for batch in batches:
            # The feature loss's buffers (memory banks) are restored, so that a probe leaves no trace there.
            with buffers_restored(task.objective):
                curvature = estimate(
                    slices_of(task, batch, self.slice_size),
                    task.student,
                    targets,
                    max_probes=self.max_probes,
                    tolerance=self.tolerance,
                    generator=generator,
                )
            total += curvature.trace / curvature.elements / (3 * curvature.gradient_std + self.epsilon)
        deltas = (total / len(batches)).clamp_min(0)
        for quantizer, delta in zip(targets, deltas, strict=True):
            buffer = quantizer.rounding.get_buffer("delta")
            buffer.copy_(torch.where(torch.isfinite(delta), delta, buffer))


def slices_of(task: Task, batch: Batch, size: int) -> list[Slice]:
    """Return a batch as slices of at most `size` images, each with the loss of the run."""

    def loss(part: slice) -> Tensor:
        images, index = batch.image[part].to(task.device), batch.index[part].to(task.device)
        label = None if batch.label is None else batch.label[part].to(task.device)
        # The uncompiled loss, because compiled graphs cannot be differentiated twice.
        return task.eager_losses(images, label, index, task.draw(index))["loss"]

    count = len(batch.image)
    bounds = [(start, min(start + size, count)) for start in range(0, count, size)]
    return [Slice(partial(loss, slice(*bound)), (bound[1] - bound[0]) / count) for bound in bounds]


def _from_hessian(quantizer: Quantizer) -> bool:
    """Return whether a quantizer's gradient scaling is to be estimated."""
    return isinstance(quantizer.rounding, ElementWiseGradientScaling) and quantizer.rounding.from_hessian

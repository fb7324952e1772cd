r"""Gradient scaling factors of EWGS from the curvature of the loss, estimated every few epochs.

Paper: Lee, Kim, Ham 2021 (https://arxiv.org/abs/2104.00903), section 3.3. For each quantized tensor q (in the unit
interval), with G the gradient of the loss with respect to q:

    delta = max(0, mean over batches of  (Tr(H) / numel(q)) / (3 std(G)))

`sqakd.quantization.curvature` estimates Tr(H) and std(G). Where this differs from the published code: that code never
calls its estimate at all; its stopping rule divides by a signed number and so stops at the first negative estimate; and
it divides by a loop variable. Here the rule uses magnitudes, the number of batches is explicit, and the curvature is
that of the run's own objective.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
import torch

from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.batch import Batch
from sqakd.numbers import check_not_negative, check_positive, check_whole
from sqakd.quantization.curvature import estimate
from sqakd.quantization.layers import quantizers
from sqakd.quantization.probe import buffers_restored
from sqakd.quantization.quantizers.base import Quantizer
from sqakd.quantization.quantizers.rounding import ElementWiseGradientScaling
from sqakd.randomness import stream_seed
from sqakd.training.task import Task


class HessianScaling(pl.Callback):
    """Estimates every `delta` that is set to "hessian", again every few epochs.

    Args:
        update_every: epochs between two estimates; the first is made after that many epochs.
        batches: training batches to average over.
        batch_size: images of each batch.
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
        max_probes: int,
        tolerance: float,
        epsilon: float,
    ) -> None:
        check_whole("update_every", update_every)
        check_whole("batches", batches)
        check_whole("batch_size", batch_size)
        check_whole("max_probes", max_probes)
        check_not_negative("tolerance", tolerance)
        check_positive("epsilon", epsilon)
        self.update_every, self.batches, self.batch_size = update_every, batches, batch_size
        self.max_probes, self.tolerance, self.epsilon = max_probes, tolerance, epsilon

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update the factors.

        Lightning does not call this again for an epoch that is resumed in its middle, so each estimate is made once.
        """
        if trainer.current_epoch == 0 or trainer.current_epoch % self.update_every:
            return
        assert isinstance(pl_module, Task)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule)
        targets = [q for q in quantizers(pl_module.student) if _from_hessian(q)]
        if targets:
            probes = data.probe_batches(count=self.batches, size=self.batch_size, epoch=trainer.current_epoch)
            self.update(pl_module, targets, probes, trainer.current_epoch)

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
            images, index = batch.image.to(task.device), batch.index.to(task.device)
            label = None if batch.label is None else batch.label.to(task.device)
            arguments = (images, label, index, task.draw(index))
            # The uncompiled loss, because compiled graphs cannot be differentiated twice. The feature loss's buffers
            # (memory banks) are restored, so that a probe leaves no trace there.
            with buffers_restored(task.objective):
                curvature = estimate(
                    lambda arguments=arguments: task.eager_losses(*arguments)["loss"],  # type: ignore[misc]
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


def _from_hessian(quantizer: Quantizer) -> bool:
    """Return whether a quantizer's gradient scaling is to be estimated."""
    return isinstance(quantizer.rounding, ElementWiseGradientScaling) and quantizer.rounding.from_hessian

r"""Batch-norm statistics measured anew before each evaluation.

    mean, var of each batch norm  <-  plain average of the batch means and variances over B training batches

with the weights as they are, instead of the running average over weights that have changed since. Only the batch norms
are in training mode, and there is no gradient. Training itself never reads these statistics, so it does not change.

Source: Nagel, Fournarakis, Bondarenko, Blankevoort 2022, "Overcoming Oscillations in Quantization-Aware Training", ICML
2022 (https://arxiv.org/abs/2203.11086). The same idea as torch.optim.swa_utils.update_bn, which also wakes dropout.
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from sqakd.dataset.base import ImageDataModule
from sqakd.numbers import is_whole
from sqakd.training.task import Task


class BatchNormStatistics(pl.Callback):
    """Measures the student's batch-norm statistics on training images; the images are another draw each epoch.

    Args:
        batches: how many to average over, at most; a small training set has fewer.
        batch_size: images of each of them.
        augmented: whether the images are changed as in training, or prepared as for evaluation.
    """

    def __init__(self, *, batches: int, batch_size: int, augmented: bool) -> None:
        for name, value, least in (("batches", batches, 1), ("batch_size", batch_size, 2)):
            if not is_whole(value) or value < least:
                raise ValueError(f"plus.bn.{name}={value!r}: expected a whole number of at least {least}")
        self.batches, self.batch_size, self.augmented = batches, batch_size, augmented

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After `on_validation_start`, where averaged weights take their place."""
        assert isinstance(pl_module, Task)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule)
        draw = data.probe_batches if self.augmented else data.plain_batches
        batches = draw(count=self.batches, size=self.batch_size, epoch=trainer.current_epoch)
        whole = [batch.image for batch in batches if len(batch.image) == self.batch_size]
        with trainer.precision_plugin.val_step_context():  # in the precision in which they are used
            measure(pl_module, whole or [batches[0].image])


@torch.no_grad()
def measure(task: Task, batches: list[Tensor]) -> None:
    """Write the plain average of the batches' statistics into each batch norm that keeps any.

    Args:
        task: its student's other modules run as in evaluation; all modes are put back.
        batches: normalised images, each [N, C, H, W].
    """
    norms = [m for m in task.student.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    modes = {module: module.training for module in task.student.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    task.student.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the plain average
        norm.train()
    try:
        for images in batches if norms else []:
            task(images.to(task.device))
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training
        if task.features is not None:
            task.features[0].take()  # no activation outlives its pass

r"""Batch-norm statistics measured again before each evaluation.

    mean, var of each batch norm  <-  plain average of the batch means and variances over B training batches

with the current weights. The usual running average mixes statistics of weights that have changed since. Only the batch
norms are in training mode, and there is no gradient. Training itself never reads these statistics, so it does not
change.

Source: Nagel, Fournarakis, Bondarenko, Blankevoort 2022, "Overcoming Oscillations in Quantization-Aware Training", ICML
2022 (https://arxiv.org/abs/2203.11086). torch.optim.swa_utils.update_bn does the same, but puts dropout into training
mode as well.
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from sqakd.dataset.base import ImageDataModule
from sqakd.numbers import check_whole
from sqakd.quantization.probe import in_mode
from sqakd.training.task import Task


class BatchNormStatistics(pl.Callback):
    """Measures the student's batch-norm statistics on training images, on another random choice in each epoch.

    Args:
        batches: how many to average over, at most; a small training set has fewer.
        batch_size: images of each batch.
        augmented: whether the images are augmented as in training, or prepared as for evaluation.

    Raises:
        SqakdError: if a number is too small.
    """

    def __init__(self, *, batches: int, batch_size: int, augmented: bool) -> None:
        check_whole("batches", batches)
        check_whole("batch_size", batch_size, minimum=2)  # a variance needs two values
        self.batches, self.batch_size, self.augmented = batches, batch_size, augmented

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure here, after `on_validation_start`, where the weight average replaces the weights."""
        assert isinstance(pl_module, Task)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule)
        draw = data.probe_batches if self.augmented else data.plain_batches
        batches = draw(count=self.batches, size=self.batch_size, epoch=trainer.current_epoch)
        # A shorter last batch would count as much as a whole one.
        whole = [batch.image for batch in batches if len(batch.image) == self.batch_size]
        with trainer.precision_plugin.val_step_context():  # in the precision of the evaluation
            measure(pl_module, whole or [batches[0].image])


@torch.no_grad()
def measure(task: Task, batches: list[Tensor]) -> None:
    """Write the plain average of the batches' statistics into each batch norm that keeps any.

    Args:
        task: its student runs in evaluation mode, except for the batch norms; all modes are restored.
        batches: normalised images, each [N, C, H, W].
    """
    norms = [m for m in task.student.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = {norm: norm.momentum for norm in norms}
    with in_mode(task.student, training=False):
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        try:
            for number, images in enumerate(batches if norms else [], start=1):
                for norm in norms:
                    # The plain average. With momentum=None torch computes it too, but reads its counter of the batches
                    # from the device for each norm.
                    norm.momentum = 1 / number
                task(images.to(task.device))
                if task.features is not None:
                    task.features[0].take()  # no activation outlives its pass
        finally:
            for norm, momentum in momenta.items():
                norm.momentum = momentum

r"""Bits that decrease in stages, within the epochs of one run.

Stage i lasts a share s_i of the E epochs and gives each quantizer max(bits of the stage, its own bits); the rest of the
epochs has the run's own bits. Where bits change, the quantizers are calibrated again, on the calibration images and on
the weights that the stage before has left; the others keep their learned ranges. Parameters stay the same objects, so
the optimizer continues.

Sources: Li, Dong, Wang 2020, "Additive Powers-of-Two Quantization" (https://arxiv.org/abs/1909.13144), initialises a
low-bit network from the one of the next higher number of bits; Zhuang, Shen, Tan, Liu, Reid 2018, "Towards Effective
Low-bitwidth Convolutional Neural Networks" (https://arxiv.org/abs/1711.00205), lowers the bits in stages and also
quantizes weights before activations; Liu et al. 2021, "How Do Adam and Training Strategies Help BNNs Optimization?"
(https://arxiv.org/abs/2106.11309), binarises activations before weights.

Epochs before the last stage are marked `preliminary` in the metrics and have no part in the record, because they have
more bits than the run is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytorch_lightning as pl
import torch
from torch import distributed, nn

from sqakd.dataset.base import ImageDataModule
from sqakd.errors import SqakdError
from sqakd.numbers import MAX_BITS, is_bits, is_number
from sqakd.quantization.calibrate import recalibrate
from sqakd.quantization.layers import quantizers
from sqakd.randomness import stream_seed
from sqakd.training.task import Task
from sqakd.training.trainer import max_epochs
from sqakd.warning import warn

KEYS = ("share", "w_bits", "a_bits")
EXTRA_STATE = "_extra_state"  # what a module keeps beside parameters and buffers, by the name that torch gives it


class BitsSchedule(pl.Callback):
    """Sets the bits of each epoch. The bits are a function of the epoch, so a checkpoint contains nothing of this.

    Args:
        stages: each with `share` of the epochs, `w_bits` and `a_bits`.

    Raises:
        SqakdError: if the shares leave no epoch for the run's own bits, or a stage has other keys or values.
    """

    needs_quantizer = True

    def __init__(self, *, stages: Sequence[Mapping[str, float]]) -> None:
        if not stages:
            raise SqakdError("the stages of a bits schedule: expected at least one, with share, w_bits and a_bits")
        for stage in stages:
            _check(stage)
        if not sum(stage["share"] for stage in stages) < 1:
            raise SqakdError("the shares of a bits schedule: expected a sum below 1, the rest has the run's own bits")
        self.shares = [stage["share"] for stage in stages]
        self.bits = [(int(stage["w_bits"]), int(stage["a_bits"])) for stage in stages]
        self.own: list[int] = []

    def stage(self, epoch: int, epochs: int) -> int:
        """Return the number of the stage that an epoch belongs to; the last stage has the run's own bits.

        Example:
            >>> schedule = BitsSchedule(stages=[{"share": 0.25, "w_bits": 8, "a_bits": 8}])
            >>> [schedule.stage(epoch, 4) for epoch in range(4)]
            [0, 1, 1, 1]
        """
        # At least the last epoch has the run's own bits.
        starts = [min(round(sum(self.shares[:i]) * epochs), epochs - 1) for i in range(len(self.shares) + 1)]
        return max(i for i, start in enumerate(starts) if start <= epoch)

    def missing(self, epochs: int) -> list[int]:
        """Return the stages that get no epoch."""
        return sorted(set(range(len(self.bits))) - {self.stage(epoch, epochs) for epoch in range(epochs)})

    def check_epochs(self, epochs: int) -> None:
        """Refuse a training in which no stage has an epoch.

        Raises:
            SqakdError: with the number of epochs.
        """
        if len(self.missing(epochs)) == len(self.bits):
            raise SqakdError(
                f"{epochs} epochs are too few for a bits schedule: none of its stages would have an epoch; use more"
                f" epochs, or remove plus="
            )

    def bits_at(self, epoch: int, epochs: int) -> list[int]:
        """Return the bits of each quantizer, in the order of `quantizers`: weight, input, weight, input ..."""
        stage = self.stage(epoch, epochs)
        if stage == len(self.bits):
            return self.own
        return [max(own, self.bits[stage][i % 2]) for i, own in enumerate(self.own)]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the run's own bits; the quantizers still have them here."""
        assert isinstance(pl_module, Task)
        self.own = [quantizer.bits for quantizer in quantizers(pl_module.student)]
        last = max_epochs(trainer)
        if missing := self.missing(last):
            pairs = ", ".join(f"w{w} a{a}" for w, a in (self.bits[i] for i in missing))
            warn(f"{last} epochs are too few for these stages of the bits schedule: {pairs}")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the bits here too: Lightning calls no `on_train_epoch_start` for an epoch resumed in its middle."""
        assert isinstance(pl_module, Task)
        self._set(pl_module, trainer.current_epoch, max_epochs(trainer))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        epoch, last = trainer.current_epoch, max_epochs(trainer)
        bits = self._set(pl_module, epoch, last)
        before = self.bits_at(epoch - 1, last) if epoch else self.own
        if bits != before:
            data = trainer.datamodule  # type: ignore[attr-defined]
            assert isinstance(data, ImageDataModule)
            pairs = zip(quantizers(pl_module.student), bits, before, strict=True)
            changed = {quantizer for quantizer, new, old in pairs if new != old}
            torch.manual_seed(stream_seed(pl_module.seed, epoch, "calibration"))  # for stochastic depth and the like
            images = data.calibration_batch(pl_module.recipe.calibration_batches)
            recalibrate(pl_module.student, images.to(pl_module.device), changed)
            _broadcast(pl_module.student)

    def _set(self, task: Task, epoch: int, epochs: int) -> list[int]:
        """Set the bits of an epoch and return them."""
        bits = self.bits_at(epoch, epochs)
        for quantizer, number in zip(quantizers(task.student), bits, strict=True):
            quantizer.set_bits(number)
        return bits

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log in every epoch whether it is preliminary, because Lightning keeps showing the last logged value."""
        preliminary = self.bits_at(trainer.current_epoch, max_epochs(trainer)) != self.own
        pl_module.log("preliminary", float(preliminary), rank_zero_only=True)


def _check(stage: Mapping[str, float]) -> None:
    """Refuse a stage with other keys or values."""
    if set(stage) != set(KEYS):
        raise SqakdError(f"stage {dict(stage)} of a bits schedule: expected share, w_bits and a_bits")
    share, *bits = (stage[key] for key in KEYS)
    if not is_number(share) or not share > 0 or not all(map(is_bits, bits)):
        raise SqakdError(
            f"stage {dict(stage)} of a bits schedule: expected a share above 0, and whole bits from 1 to {MAX_BITS}"
        )


def _broadcast(student: nn.Module) -> None:
    """Broadcast rank 0's tensors: differences by rounding error between the ranks' ranges would otherwise persist."""
    if distributed.is_available() and distributed.is_initialized():
        for name, tensor in student.state_dict().items():
            if not name.endswith(EXTRA_STATE):  # on the CPU, which a group of GPUs does not serve
                distributed.broadcast(tensor, 0)

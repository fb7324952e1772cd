r"""Bits that come down in stages, within the epochs of one run.

Stage i lasts a share s_i of the E epochs and gives each quantizer max(bits of the stage, its own); the rest of the
epochs has the run's own bits. Quantizers whose bits change are calibrated anew on the weights that the stage before
has left, and on the calibration batch; the others keep what they have learned. Parameters stay the same objects, so the
optimizer goes on.

Sources: Li, Dong, Wang 2020, "Additive Powers-of-Two Quantization" (https://arxiv.org/abs/1909.13144), starts few bits
from the next higher; Zhuang, Shen, Tan, Liu, Reid 2018, "Towards Effective Low-bitwidth Convolutional Neural Networks"
(https://arxiv.org/abs/1711.00205), does so in stages and also quantizes one tensor before the other; Liu et al. 2021,
"How Do Adam and Training Strategies Help BNNs Optimization?" (https://arxiv.org/abs/2106.11309), binarises activations
before weights.

What is measured before the last stage is marked `preliminary` and has no part in the record: more bits than asked for
are no result.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import pytorch_lightning as pl
import torch
from torch import distributed, nn

from sqakd.dataset.base import ImageDataModule
from sqakd.numbers import is_number
from sqakd.quantization.calibrate import recalibrate
from sqakd.quantization.layers import quant_layers
from sqakd.quantization.quantizers.base import MAX_BITS, Quantizer
from sqakd.randomness import stream_seed
from sqakd.training.task import Task


class BitsSchedule(pl.Callback):
    """Sets the bits of each epoch; nothing to save, because they are a function of the epoch.

    Args:
        stages: each with `share` of the epochs, `w_bits` and `a_bits`.

    Raises:
        ValueError: if shares leave no epoch for the run's own bits, or bits are none.
    """

    needs_quantizer = True

    def __init__(self, *, stages: Sequence[Mapping[str, float]]) -> None:
        if not stages:
            raise ValueError("the stages of a bits schedule: expected at least one, with share, w_bits and a_bits")
        for stage in stages:
            if set(stage) != {"share", "w_bits", "a_bits"}:
                raise ValueError(f"stage {dict(stage)} of a bits schedule: expected share, w_bits and a_bits")
            if (
                not is_number(stage["share"])
                or not stage["share"] > 0
                or not all(stage[key] in range(1, MAX_BITS + 1) for key in ("w_bits", "a_bits"))
            ):
                raise ValueError(
                    f"stage {dict(stage)} of a bits schedule: expected a share above 0, and bits from 1 to {MAX_BITS}"
                )
        if not sum(stage["share"] for stage in stages) < 1:
            raise ValueError("the shares of a bits schedule: expected a sum below 1, the rest has the run's own bits")
        self.shares = [stage["share"] for stage in stages]
        self.bits = [(int(stage["w_bits"]), int(stage["a_bits"])) for stage in stages]
        self.own: list[int] = []

    def stage(self, epoch: int, epochs: int) -> int:
        """Number of the stage that an epoch belongs to; the last one is the run's own.

        Example:
            >>> schedule = BitsSchedule(stages=[{"share": 0.25, "w_bits": 8, "a_bits": 8}])
            >>> [schedule.stage(epoch, 4) for epoch in range(4)]
            [0, 1, 1, 1]
        """
        # At least the last epoch has the run's own bits.
        starts = [min(round(sum(self.shares[:i]) * epochs), epochs - 1) for i in range(len(self.shares) + 1)]
        return max(i for i, start in enumerate(starts) if start <= epoch)

    def bits_at(self, epoch: int, epochs: int) -> list[int]:
        """Bits of each quantizer, a layer's weight before its input."""
        stage = self.stage(epoch, epochs)
        if stage == len(self.bits):
            return self.own
        return [max(own, self.bits[stage][i % 2]) for i, own in enumerate(self.own)]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Here the quantizers still have the run's own bits, as they were built."""
        self.own = [quantizer.bits for quantizer in _quantizers(pl_module)]
        epochs = trainer.max_epochs or 1
        if missing := sorted(set(range(len(self.bits))) - {self.stage(epoch, epochs) for epoch in range(epochs)}):
            pairs = ", ".join(f"w{w} a{a}" for w, a in (self.bits[i] for i in missing))
            warnings.warn(f"{epochs} epochs are too few for these stages of the bits schedule: {pairs}", stacklevel=2)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning does not start an epoch again that is resumed in its middle."""
        self._set(pl_module, trainer.current_epoch, trainer.max_epochs or 1)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch, epochs = trainer.current_epoch, trainer.max_epochs or 1
        bits = self._set(pl_module, epoch, epochs)
        before = self.bits_at(epoch - 1, epochs) if epoch else self.own
        if bits != before:
            assert isinstance(pl_module, Task)
            data = trainer.datamodule  # type: ignore[attr-defined]
            assert isinstance(data, ImageDataModule)
            pairs = zip(_quantizers(pl_module), bits, before, strict=True)
            changed = {quantizer for quantizer, new, old in pairs if new != old}
            torch.manual_seed(stream_seed(pl_module.seed, epoch, "calibration"))  # of dropped paths and the like
            recalibrate(pl_module.student, data.calibration_batch().to(pl_module.device), changed)
            _send_to_all(pl_module.student)

    def _set(self, task: pl.LightningModule, epoch: int, epochs: int) -> list[int]:
        bits = self.bits_at(epoch, epochs)
        for quantizer, number in zip(_quantizers(task), bits, strict=True):
            quantizer.set_bits(number)
        return bits

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In every epoch, because Lightning goes on showing the last value of what is no longer logged."""
        preliminary = self.bits_at(trainer.current_epoch, trainer.max_epochs or 1) != self.own
        pl_module.log("preliminary", float(preliminary), rank_zero_only=True)


def _send_to_all(student: nn.Module) -> None:
    """What the first process has, all have: a range that differs by a rounding error would stay apart from then on."""
    if distributed.is_available() and distributed.is_initialized():
        for tensor in student.state_dict().values():
            distributed.broadcast(tensor, 0)


def _quantizers(task: pl.LightningModule) -> list[Quantizer]:
    assert isinstance(task, Task)
    return [q for _, layer in quant_layers(task.student) for q in (layer.weight_quantizer, layer.input_quantizer)]

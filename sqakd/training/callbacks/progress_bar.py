"""One progress bar for the whole run, or one line per epoch without a terminal."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from tqdm import tqdm

from sqakd.numbers import check_whole
from sqakd.training.trainer import max_epochs

# Metric, its name in the text, and whether it is a percentage.
SHOWN = (("train/loss", "loss", False), ("val/top1", "top-1", True), ("val/agreement", "agreement", True))


class ProgressBar(Checkpoint):
    """Shows the steps of all epochs in one bar.

    The metrics next to the bar change once per epoch, so no step waits for them. The class is a Checkpoint only because
    Lightning calls those last, when the epoch's metrics are complete.

    Args:
        label: text in front of the bar.
        lines: without a terminal, at most this many lines for the whole run.

    Raises:
        SqakdError: if `lines` is not a whole number of at least 1.
    """

    def __init__(self, *, label: str, lines: int) -> None:
        check_whole("lines", lines)
        self.label, self.lines = label, lines
        self.bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and sys.stderr.isatty():
            steps = int(trainer.num_training_batches)
            total, done = steps * max_epochs(trainer), steps * trainer.current_epoch
            self.bar = tqdm(total=total, initial=done, desc=self.label, unit="step", dynamic_ncols=True)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if self.bar is not None:
            self.bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch, last = trainer.current_epoch + 1, max_epochs(trainer)
        text = f"epoch {epoch}/{last}  " + "  ".join(
            f"{name} {100 * float(value):.2f}%" if percent else f"{name} {float(value):.4g}"
            for key, name, percent in SHOWN
            if (value := trainer.callback_metrics.get(key)) is not None
        )
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
        elif trainer.is_global_zero and (epoch * self.lines // last > (epoch - 1) * self.lines // last):
            print(f"{self.label}: {text}", file=sys.stderr, flush=True)  # noqa: T201

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

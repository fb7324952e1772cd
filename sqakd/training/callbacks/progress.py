"""One progress bar for the whole run, or one line per epoch where nobody watches."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from tqdm import tqdm


class Progress(Checkpoint):
    """Steps of all epochs in one bar; the numbers beside it change once per epoch, so no step waits for them.

    A Checkpoint only because Lightning calls those last, when the epoch's metrics are complete.

    Args:
        label: what stands before the bar.
        lines: without a terminal, at most this many lines for the whole run.
    """

    def __init__(self, *, label: str, lines: int) -> None:
        self.label, self.lines = label, max(1, lines)
        self.bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and sys.stderr.isatty():
            steps = int(trainer.num_training_batches)
            total = steps * (trainer.max_epochs or 1)
            done = trainer.current_epoch * steps
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
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 1
        text = f"epoch {epoch}/{epochs}  " + "  ".join(
            f"{name} {100 * float(value):.2f}%"
            if key in ("val/top1", "val/agreement")
            else f"{name} {float(value):.4g}"
            for key, name in (("train/loss", "loss"), ("val/top1", "top-1"), ("val/agreement", "agreement"))
            if (value := trainer.callback_metrics.get(key)) is not None
        )
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
        elif trainer.is_global_zero and (epoch * self.lines // epochs > (epoch - 1) * self.lines // epochs):
            print(f"{self.label}: {text}", file=sys.stderr, flush=True)  # noqa: T201

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

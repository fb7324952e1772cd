"""One checkpoint that is always complete: written after each epoch, and when the system asks the run to stop."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint


class Resume(Checkpoint):
    """Writes `checkpoints/last.ckpt`, from which the same command continues to the same end, bit for bit.

    Args:
        file: the checkpoint; replaced atomically.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Save the part of the epoch that is done after SIGTERM; Lightning then leaves the loop.

        In two cases the checkpoint of the last whole epoch stays the state to return to. With several devices, ranks
        learn of the signal at different steps. In the middle of accumulation, gradients would be lost.
        """
        complete = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.received_sigterm and trainer.world_size == 1 and complete and not trainer.is_last_batch:
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint; all ranks take part, and the first one renames the file."""
        temporary = self.file.with_name(f".{self.file.name}.part")
        trainer.save_checkpoint(temporary, weights_only=False)  # the whole state, not the weights alone
        if trainer.is_global_zero:
            temporary.replace(self.file)

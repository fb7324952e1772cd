"""One checkpoint, always whole: after each epoch, and when the system asks the run to stop."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint


class Resume(Checkpoint):
    """Writes `checkpoints/last.ckpt` so that the same command continues to the same end, bit for bit.

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
        """After SIGTERM, keep what this epoch has done; Lightning then leaves the loop.

        With several devices the last whole epoch is the state to return to: ranks learn of the signal at different
        steps. So it is in the middle of accumulation.
        """
        complete = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.received_sigterm and trainer.world_size == 1 and complete and not trainer.is_last_batch:
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """All ranks take part; the first one renames."""
        temporary = self.file.with_name(f".{self.file.name}.part")
        trainer.save_checkpoint(temporary, weights_only=False)  # the whole state, not the weights alone
        if trainer.is_global_zero:
            temporary.replace(self.file)

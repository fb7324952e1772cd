"""One checkpoint that is always complete: written after each epoch, and when the system asks the run to stop."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.connectors import checkpoint_connector

from sqakd.errors import SqakdError, is_out_of_memory
from sqakd.runs.checkpoint import CheckpointError
from sqakd.runs.saved_state import RUN, Start
from sqakd.training.checkpoint_file import CheckpointFile

# The functions with which Lightning restores a checkpoint. Its `resume_end` waits for the other processes.
CONNECTOR = checkpoint_connector.__file__
RESTORING = ("restore", "_restore", "resume_start")


class Resume(Checkpoint):
    """Writes `checkpoints/last.ckpt`, from which the same command continues to the same end, bit for bit.

    Args:
        file: the checkpoint; replaced atomically.
        run: name of the run, written into the checkpoint.
        start: where the training begins.
    """

    def __init__(self, file: Path, *, run: str = "", start: Start | None = None) -> None:
        self.file, self.run, self.start = file, run, start or Start(None)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = CheckpointFile(keep=not self.start.note)  # a damaged file is not kept

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[RUN] = self.run

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Report a checkpoint that this training cannot use in one line; the block calls `Trainer.fit`.

        Other errors stay as they are, e.g. of a full GPU or a busy port: no checkpoint is deleted because of them.

        Raises:
            CheckpointError: if the checkpoint's parts do not fit the training.
        """
        try:
            yield
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError) as error:
            if self.start.file is None or isinstance(error, SqakdError) or not _is_about_content(error):
                raise
            reason = next(iter(str(error).splitlines()), "")
            raise CheckpointError(
                f"{self.start.file} does not hold the state of this run ({type(error).__name__}: {reason})",
                topic="checkpoint.no_state",
                folder=self.file.parent,
                name=self.file.stem,
            ) from error

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

        In two cases the checkpoint of the last whole epoch stays the state to return to: with several devices, see
        `SharedStop`, and in the middle of accumulation, where gradients would be lost.
        """
        complete = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.received_sigterm and trainer.world_size == 1 and complete and not trainer.is_last_batch:
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint; all ranks take part, and the first one writes the file."""
        trainer.save_checkpoint(self.file, weights_only=False)  # the whole state, not the weights alone


def _is_about_content(error: Exception) -> bool:
    """Return whether the content of a checkpoint caused an error, not the machine or a step of the training."""
    # Subclasses of RuntimeError are about memory, the device, or the network between processes.
    if is_out_of_memory(error) or (isinstance(error, RuntimeError) and type(error) is not RuntimeError):
        return False
    calls = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(code.co_filename == CONNECTOR and code.co_name.startswith(RESTORING) for code in calls)

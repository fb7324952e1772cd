"""Several processes that train one network stop together after SIGTERM.

Lightning's own way can wait for ever if a scheduler sends the signal to every process, because the processes receive it
at different moments. Its handler broadcasts a number at once, also while this process or another one is in the middle
of another operation between processes, and then the operations of the processes no longer match. Its training loop also
broadcasts whether there was a signal before every batch, for which the CPU waits for the GPU. Neither has an option.
"""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

# Optimizer steps between two questions. torchrun and SLURM's scancel wait for 30 seconds before they kill.
INTERVAL = 20
# The two methods of Lightning that are replaced, by the attribute of the trainer that has them.
HANDLER, BROADCAST = "_sigterm_notifier_fn", "_broadcast_sigterm_tensor"


class SharedStop(pl.Callback):
    """Notes SIGTERM, and asks all processes every few steps and at the end of each epoch whether one has noted it.

    With a single process it does nothing: Lightning then stops after the running batch.
    """

    def __init__(self) -> None:
        self.noted = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:  # Lightning registers its handler of the signal later
            setattr(trainer._signal_connector, HANDLER, self._note)
            setattr(trainer.fit_loop.epoch_loop, BROADCAST, lambda: None)

    def _note(self, signum: int, frame: object) -> None:
        """Handle the signal. It need not be passed on, because the other processes will ask."""
        self.noted = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Stop in the middle of an epoch, whose steps are then done again.

        A checkpoint from here would have the random numbers and the sums of the metrics of the first process only.

        Raises:
            SIGTERMException: saying what is saved.
        """
        if trainer.world_size == 1 or trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step % INTERVAL == 0 and self._asked(trainer):
            done = f"{trainer.current_epoch}/{trainer.max_epochs}"  # as the progress bar counts
            raise SIGTERMException(
                f"the state after epoch {done} is saved" if trainer.current_epoch else "no epoch is saved yet"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let Lightning stop after the callbacks of the epoch's end, of which one saves the state."""
        if trainer.world_size > 1 and self._asked(trainer):
            trainer._signal_connector.received_sigterm = True

    def _asked(self, trainer: pl.Trainer) -> bool:
        """Return whether any process has noted a signal."""
        return trainer.strategy.reduce_boolean_decision(self.noted, all=False)

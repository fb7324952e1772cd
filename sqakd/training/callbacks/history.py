"""The metrics of a run, one row per epoch, kept in the checkpoint and written to metrics.csv.

A run without a training has no epoch, so its metrics.csv has only the header.
"""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from sqakd.dataset.loader import Loader
from sqakd.files import write_text
from sqakd.training.trainer import max_epochs


class History(Checkpoint):
    """Collects the metrics of each epoch.

    A resumed run continues the rows, and an interrupted epoch leaves none. The class is a Checkpoint only because
    Lightning calls those last, when the epoch's metrics are complete.

    Args:
        file: metrics.csv of the run.

    Attributes:
        devices: the numbers of devices that trained the run together, each once: a resumed run may have several.
        initial: scores before the training, e.g. {"top1": 0.85}; empty if they were not measured. The run sets them,
            and a resumed run has those of its checkpoint.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[dict[str, float]] = []
        self.devices: list[int] = []
        self.initial: dict[str, float] = {}
        self.seconds = 0.0
        self.started = 0.0
        self.rate = float("nan")
        self.whole_epoch = True
        self.validated = False

    def state_dict(self) -> dict[str, Any]:
        seconds = self.seconds + self._elapsed()
        return {"rows": self.rows, "seconds": seconds, "devices": self.devices, "initial": self.initial}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.seconds = state_dict["rows"], state_dict["seconds"]
        # Earlier versions did not keep these two.
        self.devices, self.initial = list(state_dict.get("devices", ())), dict(state_dict.get("initial", {}))

    def _elapsed(self) -> float:
        """Return the seconds of the running epoch, or 0 between epochs."""
        return time.perf_counter() - self.started if self.started else 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock here too: an epoch resumed in its middle has no images/s, but its seconds count."""
        self.started, self.whole_epoch = time.perf_counter(), False
        if trainer.world_size not in self.devices:
            self.devices.append(trainer.world_size)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started, self.whole_epoch = time.perf_counter(), True
        self.validated = False

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute images/s here, where the training part of the epoch ends."""
        if not trainer.sanity_checking:
            self.validated = True
            loader = trainer.train_dataloader
            assert isinstance(loader, Loader)
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize(pl_module.device)
            images = min(len(loader.images), len(loader) * loader.batch_size)
            self.rate = images / self._elapsed() if self.whole_epoch else float("nan")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {k: float(v) for k, v in sorted(trainer.callback_metrics.items())}
        if not self.validated:  # Lightning still has the scores of an earlier epoch
            metrics = {name: value for name, value in metrics.items() if not name.startswith("val/")}
            self.rate = float("nan")
        self.seconds, self.started = self.seconds + self._elapsed(), 0.0
        row = {"epoch": float(trainer.current_epoch), **metrics, "images_per_second": round(self.rate, 1)}
        self.rows.append(row)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                own = {key: row[key] for key in ("epoch", "images_per_second")}
                logger.log_metrics(own, step=trainer.global_step)
            write_text(self.file, as_csv(self.rows))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and max_epochs(trainer) == 0:
            write_text(self.file, as_csv([], "epoch", *(f"val/{name}" for name in self.initial)))


def as_csv(rows: list[dict[str, float]], *first: str) -> str:
    """Return CSV text with the columns `first`, and one column for each other name that any row has."""
    columns = list(dict.fromkeys([*first, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.7g}" for k, v in row.items()} for row in rows)
    return text.getvalue()

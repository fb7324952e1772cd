"""Weights & Biases as a view of the run: online with a login, offline without one, and never a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from sqakd.randomness import stream_seed
from sqakd.runs.login import has_login


class WandbRun(WandbLogger):
    """Lightning's logger for one run: online with a login, silent, and resumed under the same id.

    It is closed when its run ends, because a sweep trains several runs in one process.

    Args:
        name: the run's name.
        seed: the run's seed.
        folder: of the run when it was trained; part of its id.
        place: where offline files go.
        **options: further arguments of `wandb.init`.
    """

    def __init__(self, *, name: str, seed: int, folder: str, place: str, **options: Any) -> None:
        Path(place).mkdir(parents=True, exist_ok=True)
        super().__init__(
            name=f"{name}-seed{seed}",
            id=f"{stream_seed(name, seed, folder):016x}",
            save_dir=place,
            offline=not has_login(),
            resume="allow",
            settings=wandb.Settings(quiet=True, console="off"),
            **options,
        )
        self._wandb_init.pop("anonymous", None)  # wandb warns of this argument, even if it is None

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


def wandb_logger(
    *,
    project: str,
    name: str,
    seed: int,
    group: str,
    job_type: str | None,
    tags: list[str],
    plus: list[str],
    folder: str,
) -> WandbRun:
    """Return a logger whose run id depends on name, seed and folder, so that a resumed run continues the same curve.

    Args:
        project: wandb project.
        name: the run's name.
        seed: the run's seed.
        group: name that related runs share, e.g. a row of a table.
        job_type: the larger task that the run belongs to, e.g. a table; None for none.
        tags: labels of the run.
        plus: names of the run's add-ons, shown as more tags.
        folder: of the run, where offline files go; part of the run's id.
    """
    labels = list(dict.fromkeys([*tags, *plus]))
    return WandbRun(
        name=name, seed=seed, folder=folder, place=folder, project=project, group=group, job_type=job_type, tags=labels
    )

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
    """Lightning's logger, closed when its run ends, because a sweep trains several runs in one process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
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
    return wandb_run(
        project=project,
        name=name,
        seed=seed,
        group=group,
        job_type=job_type,
        tags=tags,
        plus=plus,
        folder=folder,
        place=folder,
    )


def wandb_run(
    *,
    project: str,
    name: str,
    seed: int,
    group: str,
    job_type: str | None,
    tags: list[str],
    plus: list[str],
    folder: str,
    place: str,
) -> WandbRun:
    """Return the logger of `wandb_logger` for a run that may have been moved since.

    Args:
        project: see `wandb_logger`, like the other arguments.
        place: where the run's folder is now.
    """
    Path(place).mkdir(parents=True, exist_ok=True)
    return WandbRun(
        project=project,
        name=f"{name}-seed{seed}",
        id=f"{stream_seed(name, seed, folder):016x}",
        group=group,
        job_type=job_type,
        tags=list(dict.fromkeys([*tags, *plus])),
        save_dir=place,
        offline=not has_login(),
        resume="allow",
        settings=wandb.Settings(quiet=True, console="off"),
    )

"""A launcher that wraps one of Hydra's: failed or killed jobs are reported at the end and do not stop the others.

hydra/launcher=basic|joblib|submitit_slurm|submitit_local|ray     conf/hydra/launcher/*.yaml

Hydra imports this file at the start of every Hydra application, so the work is in _core.py, imported for a sweep only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

PROCESSES, JOBS, HERE = "processes", "jobs", "here"


class TrackedLauncher(Launcher):
    """Another launcher, whose jobs have their states in files and are shown in one table.

    Args:
        inner: full name of the other launcher's class.
        starts: what the other launcher starts. "processes": a pool of processes on this machine, which ends as a whole
            if one of them is killed. "jobs": independent jobs, each of which is launched and awaited by itself.
            "here": nothing, runs take place in this process.
        needs: what to give to pip install if the class is not installed.
        at_once: largest number of concurrent jobs, for starts="jobs"; None: all.
        settings: arguments of the other launcher.
    """

    def __init__(self, inner: str, starts: str, needs: str = "", at_once: int | None = None, **settings: Any) -> None:
        module, _, name = inner.rpartition(".")
        try:
            self.inner: Launcher = getattr(import_module(module), name)(**settings)
        except ImportError as error:  # Hydra would wrap an ImportError in a message of several lines
            raise SystemExit(
                f"error: this launcher is not installed ({error}); install it with: pip install {needs}"
            ) from error
        processes = int(settings.get("n_jobs", 1))
        self.processes = processes if processes > 0 else os.cpu_count() or 1  # joblib: n_jobs=-1 means all cores
        # With n_jobs=1, joblib calls the function in this process.
        self.starts = HERE if starts == PROCESSES and self.processes == 1 else starts
        self.at_once = at_once

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config
        # They would list all jobs, which the table does, and the settings of a search, whose result ShowBest shows.
        for name in ("hydra", "hydra_plugins"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs; see Hydra's Launcher.

        Raises:
            SystemExit: if any job failed, after all others have ended. A search gets failed jobs as results instead.
        """
        from hydra_plugins.sqakd_launchers import _core

        return _core.launch(self, job_overrides, initial_job_idx)

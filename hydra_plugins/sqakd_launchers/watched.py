"""Any of Hydra's launchers with a board: jobs that fail or vanish are told at the end and do not stop the others.

hydra/launcher=basic|joblib|submitit_slurm|submitit_local|ray     conf/hydra/launcher/*.yaml
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.sqakd_launchers.names import take_names

# How launchers say that a process went without a word; found by name, because only the chosen one is installed.
LOST = ("TerminatedWorkerError", "BrokenProcessPool", "UncompletedJobError", "WorkerCrashedError", "OutOfMemoryError")
MOST = 3  # a job whose process vanishes so often has failed
SILENT = 90.0  # seconds without a sign of life after which a process is gone
LOOK = 5.0  # seconds between two looks at processes that nobody waits for


class Watched(Launcher):
    """Another launcher, watched.

    Args:
        inner: full name of the launcher's class.
        when_lost: after a process vanished, relaunch (all processes of the launcher are gone with it) or wait (the
            others go on by themselves).
        needs: what to install if the class is not there.
        settings: the launcher's own.
    """

    def __init__(self, inner: str, when_lost: str, needs: str = "", **settings: Any) -> None:
        try:
            self.inner: Launcher = get_class(inner)(**settings)
        except ImportError as error:
            raise CompactHydraException(
                f"this launcher is not installed ({error}); type pip install {needs}"
            ) from error
        self.when_lost, self.settings = when_lost, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config
        for name in ("hydra", "hydra_plugins"):  # they list all jobs, which the board does better
            logging.getLogger(name).setLevel(logging.WARNING)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Do all jobs; see Hydra's Launcher.

        Raises:
            SystemExit: if any failed, after all others are done; a search takes failures itself.
        """
        if OmegaConf.select(self.config, "plan"):  # quickly said, and in one process, which adds them up
            plain = BasicLauncher()
            plain.setup(hydra_context=self.context, task_function=self.task, config=self.config)
            return plain.launch(job_overrides, initial_job_idx)
        from sqakd.sweep.board import Board  # not at the top: Hydra imports this file at each start
        from sqakd.sweep.view import ending, watching

        words = [(initial_job_idx + i, " ".join(filter_overrides(one))) for i, one in enumerate(job_overrides)]
        board = Board.new(Path(self.config.hydra.sweep.dir), words)
        processes = int(self.settings.get("n_jobs", 0))
        here = processes == 1 or isinstance(self.inner, BasicLauncher)  # joblib starts no process for one at a time
        processes = processes if processes >= 0 else os.cpu_count() or 1  # n_jobs=-1 is joblib's word for all
        parent = 0 if here or self.when_lost == "wait" else os.getpid()
        task = partial(_job, self.task, board.folder, Path.cwd(), parent, _devices(), processes)
        self.inner.setup(hydra_context=self.context, task_function=task, config=self.config)
        began = time.monotonic()
        if not here:  # else the run in this process saves its own state
            signal.signal(signal.SIGTERM, _stop)
        try:
            with os.fdopen(os.dup(sys.stdout.fileno()), "w") as out, watching(board, out):
                results = self._all(board, job_overrides, initial_job_idx)
        finally:  # also when the sweep was told to stop
            print(ending(board, time.monotonic() - began), flush=True)  # noqa: T201
        searching = self.config.hydra.runtime.choices.get("hydra/sweeper", "basic") != "basic"
        failed = sum(result.status != JobStatus.COMPLETED for result in results)
        if failed and not searching:
            raise SystemExit(f"{failed} of {len(results)} runs failed")
        return results

    def _all(self, board: Any, job_overrides: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        """Results of all jobs; those that were put aside are done last, each alone."""
        from sqakd.sweep.board import ASIDE, WAITING

        results = self._until_done(board, job_overrides, first)
        for job in board.jobs():
            if job.state == ASIDE:
                board.write(replace(job, state=WAITING))
                place = job.number - first
                results[place] = self._until_done(board, [job_overrides[place]], job.number)[0]
        return results

    def _until_done(self, board: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """The launcher's own results; where it lost a process, it launches again, or what the board says."""
        while True:
            try:
                return list(self.inner.launch(job_overrides, first))
            except Exception as error:
                if not any(kind.__name__ in LOST for kind in type(error).__mro__):
                    raise
                if self.when_lost == "wait":
                    _wait(board)
                    return [_returned(job, words) for job, words in zip(board.jobs(), job_overrides, strict=True)]
                if not board.lose(MOST):  # before any job began: it would go on forever
                    raise


def _job(
    task: TaskFunction, folder: Path, here: Path, parent: int, devices: list[str], processes: int, cfg: DictConfig
) -> Any:
    """What each process does for a job; `here` is where the sweep was started, `folder` may be relative to it."""
    from sqakd.sweep.board import Board
    from sqakd.sweep.job import claim_device, do

    for source in HydraConfig.get().runtime.config_sources:  # this process has loaded the plugins anew
        take_names(Path(source.path))
    os.chdir(here)
    claim_device(folder, devices, processes)
    number, board = int(HydraConfig.get().job.num), Board(folder)
    if "recipe" not in cfg:  # export.py
        return do(board, number, partial(task, cfg), parent=parent)
    return do(
        board,
        number,
        partial(task, cfg),
        run=f"{cfg.name}-seed{cfg.seed}",
        folder=Path(cfg.paths.runs) / cfg.name / f"seed{cfg.seed}",
        epochs=int(cfg.recipe.epochs),
        parent=parent,
    )


def _stop(number: int, frame: object) -> None:
    """End at once: processes that see their parent gone save their state, and others live on alone."""
    if sys.stdout.isatty():
        print("\x1b[?25h")  # noqa: T201  # the table hides the cursor
    print("stopped by SIGTERM; what was begun is saved, the same command continues", flush=True)  # noqa: T201
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _devices() -> list[str]:
    """GPUs of this machine, as CUDA_VISIBLE_DEVICES takes them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]


def _wait(board: Any) -> None:
    """Until no job runs or waits any more; one that gives no sign of life has failed."""
    from sqakd.sweep.board import FAILED, RUNNING, WAITING, vanished

    seen: dict[int, tuple[float, float]] = {}  # by number: when its file was touched, and when that was noticed
    while any(job.state in (WAITING, RUNNING) for job in board.jobs()):
        now = time.monotonic()
        for job in board.jobs():
            touched = board.file(job.number).stat().st_mtime if job.state == RUNNING else 0.0
            if seen.get(job.number, (None, 0.0))[0] != touched:
                seen[job.number] = (touched, now)
            elif job.state == RUNNING and now - seen[job.number][1] > SILENT:
                board.write(replace(job, state=FAILED, ended=time.time(), reason=vanished(1)))
        time.sleep(LOOK)


def _returned(job: Any, words: Sequence[str]) -> JobReturn:
    from sqakd.sweep.board import DONE
    from sqakd.sweep.job import JobError

    done = job.state == DONE
    result = JobReturn(overrides=list(words), status=JobStatus.COMPLETED if done else JobStatus.FAILED)
    result.return_value = job.score if done else JobError(job.reason)
    return result

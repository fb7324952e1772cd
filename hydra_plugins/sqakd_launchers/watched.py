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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.sqakd_launchers.names import take_names

if TYPE_CHECKING:  # Hydra imports this file at each start; the sweep's parts only when there is one
    from sqakd.app.sweep.board import Board

# How launchers say that a process went without a word; found by name, because only the chosen one is installed.
LOST = ("TerminatedWorkerError", "BrokenProcessPool", "UncompletedJobError", "WorkerCrashedError", "OutOfMemoryError")
MOST = 3  # a job whose process vanishes so often has failed
PROCESSES, JOBS, HERE = "processes", "jobs", "here"


class Watched(Launcher):
    """Another launcher, watched.

    Args:
        inner: full name of the launcher's class.
        starts: what it starts: processes on this machine, which all go when one of them vanishes; jobs that live on
            their own, each of which is launched and waited for by itself; or nothing, runs are done here.
        needs: what to install if the class is not there.
        at_once: so many jobs at a time, if it starts jobs; None: all.
        settings: the launcher's own.
    """

    def __init__(self, inner: str, starts: str, needs: str = "", at_once: int | None = None, **settings: Any) -> None:
        module, _, name = inner.rpartition(".")
        try:
            self.inner: Launcher = getattr(import_module(module), name)(**settings)
        except ImportError as error:  # not Hydra's own kind, which it would show as a representation
            raise SystemExit(f"error: this launcher is not installed ({error}); type pip install {needs}") from error
        processes = int(settings.get("n_jobs", 1))
        self.processes = processes if processes > 0 else os.cpu_count() or 1  # n_jobs=-1 is joblib's word for all
        # joblib starts no process for one at a time
        self.starts = HERE if starts == PROCESSES and self.processes == 1 else starts
        self.at_once = at_once

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
        from sqakd.app.sweep.board import Board
        from sqakd.app.sweep.view import ending, watching

        words = [(initial_job_idx + i, " ".join(filter_overrides(one))) for i, one in enumerate(job_overrides)]
        board = Board.new(Path(self.config.hydra.sweep.dir), words)
        parent = os.getpid() if self.starts == PROCESSES else 0
        devices = _devices() if self.starts == PROCESSES else []
        task = partial(_job, self.task, board.folder, Path.cwd(), parent, devices, self.processes)
        self.inner.setup(hydra_context=self.context, task_function=task, config=self.config)
        began = time.monotonic()
        if self.starts != HERE:  # else the run in this process saves its own state
            signal.signal(signal.SIGTERM, _stop)
        results: Sequence[JobReturn] = []
        try:
            with os.fdopen(os.dup(sys.stdout.fileno()), "w") as out, watching(board, out):
                results = self._all(board, job_overrides, initial_job_idx)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        finally:  # also when the sweep was told to stop
            _tell_failures(board, results)
            print(ending(board.jobs(), time.monotonic() - began), flush=True)  # noqa: T201
        searching = self.config.hydra.runtime.choices.get("hydra/sweeper", "basic") != "basic"
        failed = sum(result.status != JobStatus.COMPLETED for result in results)
        if failed and not searching:
            raise SystemExit(f"{failed} of {len(results)} runs failed")
        return results

    def _all(self, board: Board, job_overrides: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        if self.starts == HERE:
            return self.inner.launch(job_overrides, first)
        if self.starts == JOBS:
            return self._each(board, job_overrides, first)
        return self._together(board, job_overrides, first)

    def _each(self, board: Board, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Launch each job by itself and wait for it, so that one that vanishes says nothing of the others."""

        def one(place: int) -> JobReturn:
            try:
                return self.inner.launch([job_overrides[place]], first + place)[0]
            except Exception as error:
                return _failed(job_overrides[place], error)

        prepare(self.inner)
        threads = ThreadPoolExecutor(min(self.at_once or len(job_overrides), len(job_overrides)))
        try:
            return list(threads.map(one, range(len(job_overrides))))
        except KeyboardInterrupt:  # the threads would be waited for
            print("stopped by Ctrl-C; jobs that run go on, the same command waits for them", flush=True)  # noqa: T201
            os._exit(130)

    def _together(self, board: Board, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Launch all jobs; those that were put aside are done last, each alone."""
        from sqakd.app.sweep.board import ASIDE, WAITING

        results = self._until_done(board, job_overrides, first)
        for job in board.jobs():
            if job.state == ASIDE:
                board.write(replace(job, state=WAITING))
                place = job.number - first
                results[place] = self._until_done(board, [job_overrides[place]], job.number)[0]
        return results

    def _until_done(self, board: Board, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Launch, and launch again where a process vanished: what is done by then is not done again."""
        while True:
            try:
                return list(self.inner.launch(job_overrides, first))
            except Exception as error:
                if not _is_lost(error) or not board.lose(MOST):  # before any job began: it would go on forever
                    raise


def prepare(inner: Any) -> None:
    """What a launcher would begin in each of several threads is begun here once."""
    if type(inner).__name__ == "RayLauncher":
        from hydra_plugins.hydra_ray_launcher._launcher_util import start_ray

        start_ray(inner.ray_cfg.init)


def _is_lost(error: BaseException) -> bool:
    return any(kind.__name__ in LOST for kind in type(error).__mro__)


def _failed(words: Sequence[str], error: Exception) -> JobReturn:
    result = JobReturn(overrides=list(words), status=JobStatus.FAILED)
    result.return_value = error
    return result


def _tell_failures(board: Board, results: Sequence[JobReturn]) -> None:
    """Put on the board what failed without a word of its own there."""
    from sqakd.app.sweep.board import DONE, FAILED, vanished
    from sqakd.app.sweep.job import reason

    for job, result in zip(board.jobs(), results, strict=False):
        if result.status == JobStatus.COMPLETED or job.state in (DONE, FAILED):
            continue
        try:
            result.return_value  # noqa: B018  # raises what the job raised
        except Exception as error:
            words = vanished(1) if _is_lost(error) else reason(error)
            with suppress(OSError):
                board.write(replace(job, state=FAILED, ended=time.time(), reason=words))


def _job(
    task: TaskFunction, folder: Path, here: Path, parent: int, devices: list[str], processes: int, cfg: DictConfig
) -> Any:
    """What each process does for a job; `here` is where the sweep was started, `folder` may be relative to it."""
    from sqakd.app.sweep.board import Board
    from sqakd.app.sweep.job import claim_device, do

    for source in HydraConfig.get().runtime.config_sources:  # this process has loaded the plugins anew
        take_names(Path(source.path))
    os.chdir(here)
    claim_device(folder, devices, processes)
    number, board = int(HydraConfig.get().job.num), Board(folder)
    if "recipe" not in cfg:  # export.py
        return do(board, number, partial(task, cfg), parent=parent)
    epochs = cfg.recipe.epochs
    return do(
        board,
        number,
        partial(task, cfg),
        run=f"{cfg.name}-seed{cfg.seed}",
        folder=Path(cfg.paths.runs) / cfg.name / f"seed{cfg.seed}",
        epochs=epochs if isinstance(epochs, int) else 0,
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

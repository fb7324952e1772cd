"""The launch of a sweep. The underscore keeps Hydra from importing this file when it looks for plugins."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.sqakd_launchers.launcher import HERE, JOBS, PROCESSES, TrackedLauncher
from hydra_plugins.sqakd_launchers.schemas import hide_schemas
from sqakd.app.modes import SWEEPERS
from sqakd.app.start import large_imports
from sqakd.app.sweep.folders import FolderError, check_folders
from sqakd.app.sweep.job import failure_reason, run_job
from sqakd.app.sweep.outcome import show_outcome
from sqakd.app.sweep.process import claim_gpu, exit_on_sigterm, is_process_loss, visible_gpus
from sqakd.app.sweep.store import DONE, FAILED, SET_ASIDE, WAITING, JobStore, killed_reason
from sqakd.app.sweep.view import show_progress
from sqakd.interrupts import INTERRUPT_STATUS, catch_interrupts, errors_in_one_line
from sqakd.runs.folder import RunFolder
from sqakd.runs.length import length_of

MAX_LOSSES = 3  # a job whose process was killed so often has failed


def launch(launcher: TrackedLauncher, job_overrides: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
    """Run all jobs of a sweep and print its summary.

    Args:
        launcher: a launcher after its setup.
        job_overrides: overrides of each job.
        first: number of the first job.

    Raises:
        SystemExit: if two different jobs would have the same folder; or if any job failed, unless the sweeper is a
            search.
    """
    config = launcher.config
    is_search = config.hydra.runtime.choices.get("hydra/sweeper", "basic") not in SWEEPERS
    planned = OmegaConf.select(config, "plan")
    if is_search and planned:
        raise SystemExit("error: plan: a search cannot be planned, because each run depends on those before")
    HydraConfig.instance().set_config(config)  # as jobs do; compositions need the folders of hydra.searchpath
    if "recipe" in config:  # not export.py
        try:
            check_folders([list(filter_overrides(one)) for one in job_overrides])
        except FolderError as error:
            if not first:
                _remove_description(config)
            raise SystemExit(f"error: {error}") from error
    if planned:
        _remove_description(config)
        with large_imports():
            from sqakd.app.plan import plan_sweep
        plan_sweep([list(filter_overrides(one)) for one in job_overrides])
        return []
    overrides = [(first + i, " ".join(filter_overrides(one))) for i, one in enumerate(job_overrides)]
    if launcher.starts == HERE:  # before Ctrl-C raises an exception, which imports may catch
        with large_imports():
            import sqakd.app.train  # noqa: F401
    catch_interrupts()
    with errors_in_one_line():
        store = JobStore.create(Path(config.hydra.sweep.dir), overrides)
    pooled = launcher.starts == PROCESSES
    parent, gpus = (os.getpid(), visible_gpus()) if pooled else (0, [])
    task = partial(_execute, launcher.task, store.folder, Path.cwd(), parent, gpus, launcher.processes)
    launcher.inner.setup(hydra_context=launcher.context, task_function=task, config=config)
    if launcher.starts != HERE:  # else the run in this process handles SIGTERM and saves its state
        exit_on_sigterm()
    started = time.monotonic()
    results: Sequence[JobReturn] = []
    try:
        with os.fdopen(os.dup(sys.stdout.fileno()), "w") as out, show_progress(store, out):
            results = _Sweep(launcher.inner, store, job_overrides, first).run(launcher.starts, launcher.at_once)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != INTERRUPT_STATUS:
            raise
        print("stopped by Ctrl-C; the same command continues", file=sys.stderr, flush=True)  # noqa: T201
        raise SystemExit(INTERRUPT_STATUS) from None
    finally:  # also if the sweep is interrupted
        _record_failures(store, results)
        show_outcome(store, time.monotonic() - started, sys.stdout, scored=not is_search)
    failed = sum(result.status != JobStatus.COMPLETED for result in results)
    if failed and not is_search:
        raise SystemExit(f"{failed} of {len(results)} runs failed")
    return results


def _remove_description(config: DictConfig) -> None:
    """Delete Hydra's description of the last sweep in this folder, which started no run."""
    folder = Path(config.hydra.sweep.dir)
    with suppress(OSError):
        (folder / "multirun.yaml").unlink(missing_ok=True)
        folder.rmdir()  # unless it has files of other sweeps


@dataclass(frozen=True)
class _Sweep:
    """The jobs of one sweep and the launcher that starts them.

    Attributes:
        launcher: the wrapped launcher, after its setup.
        store: states of the jobs.
        job_overrides: overrides of each job.
        first: number of the first job.
    """

    launcher: Launcher
    store: JobStore
    job_overrides: Sequence[Sequence[str]]
    first: int

    def run(self, starts: str, at_once: int | None) -> Sequence[JobReturn]:
        """Run all jobs; see `TrackedLauncher` for the arguments."""
        if starts == JOBS:
            return self._run_independently(at_once)
        if starts == PROCESSES:
            return self._run_in_pool()
        return self.launcher.launch(self.job_overrides, self.first)

    def _run_independently(self, at_once: int | None) -> list[JobReturn]:
        """Launch and await each job by itself, because a launcher gives up all jobs of a call if one vanishes."""

        def run_one(index: int) -> JobReturn:
            try:
                return self.launcher.launch([self.job_overrides[index]], self.first + index)[0]
            except Exception as error:  # of the job or of its launcher: recorded as the job's failure
                result = JobReturn(overrides=list(self.job_overrides[index]), status=JobStatus.FAILED)
                result.return_value = error
                return result

        _start_ray(self.launcher)
        count = len(self.job_overrides)
        threads = ThreadPoolExecutor(min(at_once or count, count))
        try:
            return list(threads.map(run_one, range(count)))
        except KeyboardInterrupt:  # a normal exit would wait for the threads
            print(  # noqa: T201
                "stopped by Ctrl-C; running jobs continue, and the same command waits for them", flush=True
            )
            os._exit(INTERRUPT_STATUS)

    def _run_in_pool(self) -> list[JobReturn]:
        """Launch all jobs together, then those that were set aside, each alone."""
        results = self._launch_until_done(self.job_overrides, self.first)
        for job in self.store.jobs():
            if job.state == SET_ASIDE:
                self.store.write(replace(job, state=WAITING))
                index = job.number - self.first
                results[index] = self._launch_until_done([self.job_overrides[index]], job.number)[0]
        return results

    def _launch_until_done(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Launch jobs, and launch all of them again whenever a process was killed.

        Jobs that have ended are not run again (`run_job`).
        """
        while True:
            try:
                return list(self.launcher.launch(job_overrides, first))
            except Exception as error:
                # Without a lost job, the pool ended before any job began, and would end so each time.
                if not is_process_loss(error) or not self.store.mark_lost(MAX_LOSSES):
                    raise


def _start_ray(launcher: Any) -> None:
    """Connect to Ray once; otherwise each of several threads would try to."""
    if type(launcher).__name__ == "RayLauncher":
        from hydra_plugins.hydra_ray_launcher._launcher_util import start_ray

        start_ray(launcher.ray_cfg.init)


def _record_failures(store: JobStore, results: Sequence[JobReturn]) -> None:
    """Record the failures that the jobs' own processes could not record."""
    for job, result in zip(store.jobs(), results, strict=False):
        if result.status == JobStatus.COMPLETED or job.state in (DONE, FAILED):
            continue
        try:
            result.return_value  # noqa: B018  # raises what the job raised
        except Exception as error:  # of the job, whose log has its traceback
            reason = killed_reason(1) if is_process_loss(error) else failure_reason(error)
            store.write_if_possible(replace(job, state=FAILED, ended=time.time(), reason=reason))


def _execute(
    task: TaskFunction, folder: Path, start: Path, parent: int, gpus: list[str], processes: int, cfg: DictConfig
) -> Any:
    """Run one job in its process; Hydra calls this function in place of the application's main function.

    Args:
        task: the application's main function.
        folder: files of the sweep, possibly relative to `start`.
        start: where the sweep was started.
        parent: process whose end ends this one; 0: none.
        gpus: GPUs to share between the sweep's processes.
        processes: number of the sweep's processes.
        cfg: configuration of the job.
    """
    # In a new process Hydra has imported all plugins again, which registered their schemas again. The run would meet
    # them, because it composes further configurations, such as its teacher's.
    hide_schemas(GlobalHydra.instance().config_loader().get_search_path())
    os.chdir(start)
    claim_gpu(folder, gpus, processes)
    number, store = HydraConfig.get().job.num, JobStore(folder)
    if "recipe" not in cfg:  # export.py
        return run_job(store, number, partial(task, cfg), parent=parent)
    return run_job(
        store,
        number,
        partial(task, cfg),
        run=f"{cfg.name}-seed{cfg.seed}",
        folder=RunFolder.of(cfg.paths.runs, cfg.name, cfg.seed).path,
        epochs=length_of(cfg).training,
        parent=parent,
    )

"""The start of a command: refusals and the first line come before the packages that take seconds to import.

A composed configuration can be read without torch and Lightning. Errors in it are refused at once. A valid command
first prints its task.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sqakd.app.compose import spec_of, with_classes
from sqakd.app.console import quiet_libraries, say, show_warnings_as_lines
from sqakd.app.errors import report_errors
from sqakd.app.modes import check_folder, check_mode
from sqakd.interrupts import catch_interrupts
from sqakd.model_file import QONNX
from sqakd.runs.folder import RunFolder

NOTHING_REPLACED = "nothing was replaced, the same command starts again"


@contextmanager
def large_imports() -> Iterator[None]:
    """Import large packages faster in the block, and let Ctrl-C raise KeyboardInterrupt afterwards.

    Packages make some 800,000 objects that live until the process ends. Searching them for garbage takes a fifth of the
    time of their import, and a second at the end of the process. So nothing is searched in the block, and its objects
    are never searched later.
    """
    first = gc.get_freeze_count() == 0  # a second time, the garbage of the process would be kept with them
    if first:
        gc.disable()
    try:
        yield
    finally:
        if first:
            gc.freeze()
            gc.enable()
    quiet_libraries()
    show_warnings_as_lines()
    catch_interrupts()


def train(cfg: DictConfig) -> float | None:
    """Train the run that a composed configuration describes, or plan it.

    Returns:
        The last validation top-1 (agreement with the teacher where there are no labels), for sweepers.
    """

    def run() -> float | None:
        spec = with_classes(spec_of(cfg, HydraConfig.get()))
        check_folder(spec)
        folder = RunFolder.of_spec(spec)
        if spec.config["plan"]:
            say(f"plan of {folder.path}")
            with large_imports():
                from sqakd.app.plan import plan_runs
            plan_runs([spec])
            return None
        check_mode(spec)
        say(f"run {folder.path}")
        with large_imports():
            from sqakd.app.train import train
        return train(spec).main_score

    return report_errors(run)


def export(cfg: DictConfig) -> float | None:
    """Export the run that a composed configuration names.

    Returns:
        Agreement of the file with the trained network.
    """

    def run() -> float:
        config = spec_of(cfg, HydraConfig.get()).config
        qonnx = config["format"] == QONNX
        measured = config["benchmark"]["rounds"] and not qonnx
        note = (
            ", with a measurement of its speed, which takes minutes (benchmark.rounds=0 omits it)" if measured else ""
        )
        say(f"exporting {config['run']} as {QONNX if qonnx else config['profile']}{note}")
        with large_imports():
            from sqakd.app.export import export_run
        return export_run(config)

    return report_errors(run, stopped=NOTHING_REPLACED)


def sensitivity(cfg: DictConfig) -> float | None:
    """Measure the sensitivity of the float run that a composed configuration names."""

    def run() -> None:
        config = spec_of(cfg, HydraConfig.get()).config
        say(f"sensitivity of {config['run']} to {config['method']}")
        with large_imports():
            from sqakd.app.sensitivity_command import run_sensitivity
        run_sensitivity(config)

    return report_errors(run, stopped=NOTHING_REPLACED)

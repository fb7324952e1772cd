"""Shares of whole commands: imports, composition, checks, data, calibration, training, evaluation, files.

    python benchmarks/run.py [--only digits] [--epochs 2] [--images 50000] [--cpu-time] [OVERRIDES ...]

For digits and for a set of the size of CIFAR-10, two commands are measured, each in a process of its own: the float
run, then the student that it teaches. The images of the second set are random; their files have the form of CIFAR-10's,
so that checksums and reading are included. Overrides, e.g. trainer.compile=true, are added to both commands.

A phase is a set of functions. The time of a function is its own: what it spends in functions of other phases counts
there alone. Imports count as imports wherever they happen. With --cpu-time, the seconds are those of the processor,
which other jobs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import importlib._bootstrap
import json
import os
import pickle
import platform
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Variables for the process of a command.
RESULT, STARTED, CPU_TIME = "SQAKD_RUN_RESULT", "SQAKD_RUN_STARTED", "SQAKD_RUN_CPU"
CHECKSUMS = "SQAKD_RUN_CHECKSUMS"  # path of a file: {name of a file of the data set: its MD5}
CIFAR_FILES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
# Functions of each phase: module, and the name in it. Functions that are imported by name are replaced where they are.
PHASES = {
    "composition": [
        ("hydra._internal.config_loader_impl", "ConfigLoaderImpl.load_configuration"),
        ("sqakd.app.start", "spec_of"),
        ("sqakd.app.train", "reference_of"),
        ("sqakd.app.parts", "compose_spec"),
        ("sqakd.app.teacher", "compose_spec"),
    ],
    "parts and checks": [
        *(("sqakd.app.train", f"check_{name}") for name in ("config", "parts", "float_runs", "data")),
        *(("sqakd.app.train", name) for name in ("make_parts", "with_inputs", "build_float_network", "make_trainer")),
        ("sqakd.app.train", "set_up_feature_loss"),
        ("sqakd.app.train", "find_networks"),
        ("sqakd.app.train", "_resume"),
    ],
    "data": [("sqakd.dataset.base", "ImageDataModule.setup")],
    "calibration": [("sqakd.app.train", "_calibrate")],
    "evaluation": [
        ("sqakd.app.train", "report_teacher"),
        ("sqakd.app.train", "report_initial"),
        ("pytorch_lightning.loops.evaluation_loop", "_EvaluationLoop.run"),
    ],
    "compilation": [
        ("torch._dynamo.convert_frame", "ConvertFrame.__call__"),
        ("torch._inductor.compile_fx", "compile_fx_inner"),
    ],
    "forward": [("sqakd.training.task", "Task.training_step")],
    "backward": [("pytorch_lightning.strategies.strategy", "Strategy.backward")],
    "optimizer": [("pytorch_lightning.strategies.strategy", "Strategy.optimizer_step")],
    "batches": [
        ("sqakd.dataset.loader", "Loader.batch"),
        ("sqakd.dataset.base", "ImageDataModule.on_after_batch_transfer"),
    ],
    "curvature": [("sqakd.training.callbacks.hessian_scaling", "HessianScaling.update")],
    "callbacks": [("pytorch_lightning.trainer.call", "_call_callback_hooks")],
    "checkpoints": [("pytorch_lightning", "Trainer.save_checkpoint")],
    "Lightning's loop": [("pytorch_lightning", "Trainer.fit")],
    "weights and record": [("sqakd.app.train", "record_of"), ("sqakd.app.train", "write_results")],
    "picture": [("sqakd.app.result", "draw_run")],
}
IMPORTS, REST, EXIT = "imports", "rest", "exit"


class Stopwatch:
    """Times of phases, of which one runs at a time: an inner phase interrupts the outer one.

    Args:
        clock: returns seconds; the first phase has begun at 0.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.last = clock, 0.0
        self.running = [REST]
        self.seconds: dict[str, float] = defaultdict(float)

    def stop_phase(self) -> None:
        """Add the time since the last call to the phase that runs."""
        now = self.clock()
        self.seconds[self.running[-1]] += now - self.last
        self.last = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Interrupt the phase that runs with another one."""
        self.stop_phase()
        self.running.append(name)
        try:
            yield
        finally:
            self.stop_phase()
            self.running.pop()

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """Replace a function of a module or a class by one that is timed."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(phase):
                return function(*args, **kwargs)

        setattr(owner, name, timed)


def run_child() -> None:
    """Run train.py in this process with the arguments of this process, and write the seconds of each phase."""
    cpu_time = os.environ[CPU_TIME] == "1"
    started = float(os.environ[STARTED])
    watch = Stopwatch(time.process_time if cpu_time else lambda: time.time() - started)
    watch.wrap(importlib._bootstrap, "_find_and_load", IMPORTS)
    watch.running[0] = IMPORTS  # the start of Python
    watch.stop_phase()
    watch.running[0] = REST
    from sqakd.app.start import large_imports

    with large_imports():  # as the command itself does
        import sqakd.app.train  # noqa: F401
    for phase, functions in PHASES.items():
        for module, name in functions:
            *classes, attribute = name.split(".")
            watch.wrap(functools.reduce(getattr, classes, importlib.import_module(module)), attribute, phase)
    sys.argv[0] = str(ROOT / "train.py")
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        watch.stop_phase()
        Path(os.environ[RESULT]).write_text(json.dumps(watch.seconds), encoding="utf-8")


def measure(arguments: list[str], folder: Path, *, cpu_time: bool) -> dict[str, float]:
    """Run one command in a new process and return the seconds of its phases.

    Raises:
        SystemExit: if the command fails.
    """
    result = folder / "seconds.json"
    environment = os.environ | {RESULT: str(result), CPU_TIME: str(int(cpu_time)), CHECKSUMS: str(folder / "md5.json")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    environment[STARTED] = str(started)
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds[EXIT] = (used if cpu_time else time.time() - started) - sum(seconds.values())
    return seconds


def make_cifar(folder: Path, images: int) -> None:
    """Write random images as the files of CIFAR-10, and their checksums.

    Args:
        folder: gets data/cifar-10-batches-py and md5.json.
        images: number of training images; there are a fifth as many test images.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    place, checksums = folder / "data" / "cifar-10-batches-py", {}
    place.mkdir(parents=True)
    contents: dict[str, dict[str, Any]] = {"batches.meta": {"label_names": [str(i) for i in range(10)]}}
    for name in CIFAR_FILES:
        labels = generator.integers(10, size=images // 5)
        # Each class has a brightness of its own, so that there is something to learn.
        pixels = generator.integers(0, 128, (len(labels), 3072)) + 12 * labels[:, None]
        contents[name] = {"data": pixels.astype(np.uint8), "labels": labels.tolist()}
    for name, content in contents.items():
        data = pickle.dumps(content)
        (place / name).write_bytes(data)
        checksums[name] = hashlib.md5(data, usedforsecurity=False).hexdigest()
    (folder / "md5.json").write_text(json.dumps(checksums), encoding="utf-8")


def print_table(columns: dict[str, dict[str, float]]) -> None:
    """Print the seconds of each phase and its share of the command, as a table in Markdown."""
    totals = {name: sum(seconds.values()) for name, seconds in columns.items()}
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for phase in [IMPORTS, *PHASES, REST, EXIT]:
        values = {name: seconds.get(phase, 0.0) for name, seconds in columns.items()}
        if any(values.values()):
            cells = (f"{value:.2f} s, {100 * value / totals[name]:.1f} %" for name, value in values.items())
            print(f"| {phase} | {' | '.join(cells)} |")
    print(f"| whole command | {' | '.join(f'{total:.1f} s' for total in totals.values())} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["digits", "cifar"], help="measure only this data set")
    parser.add_argument("--epochs", type=int, help="of both runs; as in the recipe for digits, 2 for CIFAR if omitted")
    parser.add_argument("--images", type=int, default=50_000, help="number of training images of CIFAR's size")
    parser.add_argument("--cpu-time", action="store_true", help="measure seconds of the processor, not of a clock")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of both commands")
    options = parser.parse_args()
    sets = {
        "digits": ["dataset=digits"],
        "cifar": ["dataset=cifar10", "dataset._target_=run_data.MadeCifar", "callbacks.hessian_scaling.update_every=1"],
    }
    columns = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in [options.only] if options.only else sets:
            if name == "cifar":
                make_cifar(folder, options.images)
            epochs = options.epochs or (2 if name == "cifar" else None)
            lengths = (f"recipe.epochs={epochs}", f"teacher.recipe.epochs={epochs}") if epochs else ()
            for kind, own in (("float", ["quantizer=none", *lengths[:1]]), ("student", lengths)):
                command = [*sets[name], *own, f"paths.data={folder / 'data'}", *options.overrides]
                columns[f"{name}, {kind}"] = measure(command, folder, cpu_time=options.cpu_time)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, n = 1")
    print_table(columns)


if __name__ == "__main__":
    if "--child" in sys.argv:
        sys.argv.remove("--child")
        run_child()
    else:
        main()

"""Time of a sweep in one process, and of the same runs as commands of their own.

    python benchmarks/sweep.py [--epochs 2] [--rounds 1] [OVERRIDES ...]

The runs are the first twelve cells of table=digits: EWGS with three bit widths, each with four training methods. The
teacher is trained before, and each variant begins with an empty folder of compiled code, which its runs share.
Processor time includes the compilers that a process starts.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ("table=digits", "quantizer=ewgs", "seed=0")
METHODS = (["kd=none"], ["kd=sqakd"], ["kd=squat"], ["kd=sqakd", "plus=[bn,ema]"])
CELLS = [["dataset=digits16", "quantizer=ewgs", f"bits={b}", *kd] for kd, b in itertools.product(METHODS, (1, 2, 4))]


def train(*overrides: str) -> None:
    """Run train.py to its end.

    Raises:
        SystemExit: if the command fails; its output is the message.
    """
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def measure(commands: list[list[str]], folder: Path, common: list[str]) -> tuple[float, float]:
    """Return the seconds of the clock and of the processor for some commands, each with the teacher in `folder`."""
    own = folder.with_name("variant")
    shutil.copytree(folder, own)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for command in commands:
        train(*command, *common, f"paths.runs={own / 'runs'}", f"paths.cache={own / 'cache'}")
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    done = len(list(own.glob("runs/*/*/record.json"))) - 1
    if done != len(CELLS):
        raise SystemExit(f"{done} students were trained; expected {len(CELLS)}")
    shutil.rmtree(own)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2, help="of each run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of all runs")
    options = parser.parse_args()
    common = [f"recipe.epochs={options.epochs}", "teacher.recipe.epochs=1"]
    common += options.overrides
    variants = {"one sweep": [[*TABLE]], "twelve commands": CELLS}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "teacher"
        only_teacher = ["dataset=digits16", "quantizer=none", "recipe.epochs=1", *options.overrides]
        train(*only_teacher, f"paths.runs={folder / 'runs'}", f"paths.cache={folder / 'cache'}")
        for _ in range(options.rounds):
            for name, commands in variants.items():
                found[name].append(measure(commands, folder, common))
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, n = {options.rounds}")
    for name, rows in found.items():
        clock, processor = (statistics.median(values) for values in zip(*rows, strict=True))
        print(f"{name:16} {clock:8.1f} s, processor {processor:8.1f} s, {processor / len(CELLS):6.1f} s for each run")


if __name__ == "__main__":
    main()

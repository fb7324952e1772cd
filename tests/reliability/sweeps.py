"""Sweeps of several processes whose parent or workers are killed: the same command then trains what is missing."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import command

from tests.reliability.case import Case, Ending, Fault
from tests.reliability.files import S
from tests.reliability.messages import TRACEBACK, last_line
from tests.reliability.options import BASE, GIVEN
from tests.reliability.process import descendants
from tests.reliability.samples import STUDENT, Samples

SEEDS = (0, 1, 2)
WORDS = ("train.py", *BASE, "recipe.epochs=3", "recipe.batch_size=8", GIVEN, "seed=0,1,2")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
SECONDS = 240


def cases(samples: Samples) -> Iterator[Case]:
    """Yield the cases of killed sweeps."""
    for victim in ("parent", "worker"):
        for seed in SEEDS:
            for by in (signal.SIGKILL, signal.SIGTERM):
                if victim == "parent" or by == signal.SIGKILL:
                    yield Case(
                        "kills", f"sweep's {victim}", f"{by.name} in seed {seed}", _play(samples, victim, seed, by)
                    )


def _play(samples: Samples, victim: str, seed: int, by: signal.Signals) -> Callable[[Path], Ending]:
    def play(folder: Path) -> Ending:
        shutil.copy(samples.teacher, folder)
        environment = os.environ | {"PYTHONPATH": str(command.ROOT), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, str(command.ROOT / WORDS[0]), *WORDS[1:], *JOBLIB, "-m"]
        faults: list[tuple[Fault, str]] = []
        with subprocess.Popen(
            words, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as sweep:
            started = folder / S.replace("seed0", f"seed{seed}") / "metrics.csv"
            end = time.monotonic() + SECONDS
            while not started.exists() and sweep.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            below = descendants(sweep.pid)
            targets = [sweep.pid] if victim == "parent" else [_worker(below)]
            os.kill(targets[0], by)
            _, errors = sweep.communicate(timeout=SECONDS)
            _wait_for_end(below)
        if victim == "parent" and by == signal.SIGTERM and TRACEBACK in errors:
            faults.append((Fault.TRACEBACK, last_line(errors)))
        again = command.script(*WORDS, "-m", folder=folder, timeout=SECONDS)
        if again.returncode:
            faults.append((Fault.LOST, f"the same command does not continue: {last_line(again.stderr)}"))
        for one in () if again.returncode else SEEDS:
            run = f"runs/{STUDENT}/seed{one}"
            if not command.same_bits(command.weights(folder / run), command.weights(samples.swept / run)):
                faults.append((Fault.NONSENSE, f"other weights in seed {one}"))
        lines = [*errors.splitlines()[-4:], *(again.stdout + again.stderr).splitlines()[-3:]]
        shown = f"{shlex.join(['python', *WORDS, *JOBLIB, '-m'])}  # {by.name} to a {victim}"
        return Ending(False, tuple(faults), shown, tuple(line[:300] for line in lines))

    return play


def _worker(below: list[int]) -> int:
    """Return the process that works most; joblib's other processes only watch."""

    def ticks(pid: int) -> int:
        try:
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
        except OSError:  # it has ended
            return -1

    return max(below, key=ticks)


def _wait_for_end(pids: list[int]) -> None:
    """Wait until the processes of a killed parent have ended; they save their state first."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and any(_lives(pid) for pid in pids):
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False

"""The project's commands as a user runs them, made small enough for a test."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import warm_process

ROOT = Path(__file__).parents[2]
# With one residual block per stage instead of three, and two epochs, a run takes seconds.
SMALL = ["model.net.blocks=1", "recipe.epochs=2", "teacher.recipe.epochs=2"]


def train(
    *overrides: str,
    runs: Path,
    timeout: float = 300,
    new_process: bool = False,
    variables: Mapping[str, str] | None = None,
    name: str = "train.py",
) -> subprocess.CompletedProcess[str]:
    """Run `python train.py OVERRIDES`, or another script that does so, with `runs` as the folder of runs."""
    arguments = [f"paths.runs={runs}", *overrides]
    return script(name, *arguments, folder=runs.parent, timeout=timeout, new_process=new_process, variables=variables)


def train_launched(
    *overrides: str, runs: Path, processes: int = 2, name: str = "train.py"
) -> list[subprocess.CompletedProcess[str]]:
    """Run `python train.py OVERRIDES` in several processes at once that train one run, as torchrun starts them.

    Args:
        overrides: of the run.
        runs: folder of runs.
        processes: their number.
        name: of a script, see `script`.

    Returns:
        What became of each process, by rank.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    overrides = (*overrides, "trainer.accelerator=cpu", f"trainer.devices={processes}", "trainer.strategy=ddp")

    def start(rank: int) -> subprocess.CompletedProcess[str]:
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        return train(*overrides, runs=runs, timeout=120, variables=shared | own, name=name)

    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(start, range(processes)))


def script(
    name: str,
    *arguments: str,
    folder: Path,
    timeout: float = 300,
    new_process: bool = False,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python NAME ARGUMENTS` in a folder; the name "-m" runs a module.

    Args:
        name: file name of a script in the project's root; "-m" or "-c", which always starts a new process.
        arguments: of the command line.
        folder: where to run.
        timeout: seconds after which the command is killed.
        new_process: whether to start Python anew instead of forking a process that has the large packages imported.
        variables: further variables of the environment.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}", "OMP_NUM_THREADS": "1"}
    environment["OMP_WAIT_POLICY"] = "passive"  # spinning threads slow a busy machine down several times
    environment |= variables or {}
    path = name if name.startswith("-") else str(ROOT / name)
    if not new_process and name != "-c":
        return warm_process.run(path, arguments, folder=folder, environment=environment, timeout=timeout)
    return subprocess.run(
        [sys.executable, path, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def kill_at(victim: str, epoch: int, step: int, signal_name: str) -> list[str]:
    """Return overrides that send a signal to the process at one step of the run whose name contains `victim`."""
    return [
        "callbacks.progress._target_=kill_at.KillAt",
        f"+callbacks.progress.victim={victim}",
        f"+callbacks.progress.epoch={epoch}",
        f"+callbacks.progress.step={step}",
        f"+callbacks.progress.signal_name={signal_name}",
    ]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a run's weights.pt."""
    tensors: dict[str, torch.Tensor] = _weights_file(run)["weights"]
    return tensors


def facts(run: Path) -> dict[str, Any]:
    """Read what a run's weights.pt says about the network."""
    found: dict[str, Any] = _weights_file(run)["facts"]
    return found


def _weights_file(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / "weights.pt", weights_only=True)
    return content


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Return whether two sets of weights have the same names and equal values."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def metrics(run: Path) -> list[dict[str, str]]:
    """Read the rows of a run's metrics.csv without the speed, which differs between equal runs."""
    with (run / "metrics.csv").open(newline="") as lines:
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(lines)]

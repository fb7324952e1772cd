"""Running the project's commands as a user would, small enough for a test."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
# One residual block per stage instead of three, and two epochs: a run takes seconds.
SMALL = ["model.net.blocks=1", "recipe.epochs=2", "teacher.recipe.epochs=2"]


def train(*words: str, runs: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`python train.py WORDS` with its runs in a folder of the test's."""
    return script("train.py", f"paths.runs={runs}", *words, folder=runs.parent, timeout=timeout)


def script(name: str, *words: str, folder: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`python NAME WORDS` in a folder of the test's; "-m" as the name runs a module."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}", "OMP_NUM_THREADS": "1"}
    environment["OMP_WAIT_POLICY"] = "passive"  # threads that wait by spinning make a busy machine several times slower
    command = [sys.executable, name if name.startswith("-") else str(ROOT / name), *words]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def kill_at(victim: str, epoch: int, step: int, signal_name: str) -> list[str]:
    """Words that end the process by a signal when the run `victim` (or part of its name) is at that step."""
    return [
        "callbacks.progress._target_=kill_at.KillAt",
        f"+callbacks.progress.victim={victim}",
        f"+callbacks.progress.epoch={epoch}",
        f"+callbacks.progress.step={step}",
        f"+callbacks.progress.signal_name={signal_name}",
    ]


def weights(run: Path) -> dict[str, torch.Tensor]:
    content: dict[str, Any] = torch.load(run / "weights.pt", weights_only=True)
    tensors: dict[str, torch.Tensor] = content["weights"]
    return tensors


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def metrics(run: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv without the one column that may differ."""
    with (run / "metrics.csv").open(newline="") as lines:
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(lines)]

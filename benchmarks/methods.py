"""Cost of each distillation loss: time of a training step relative to SQAKD's, and parameters of the loss.

    python benchmarks/methods.py [--batch 64] [--rounds 7] [--steps 1] [--compile] [--cpu-time] [--methods at crd]

The benchmark covers every option of conf/kd with its settings there, for a W2A2 EWGS ResNet-20 with a float ResNet-20
as its teacher and a training set of 50,000 images in ten classes. Stages before the training are not included. Each
round times every loss once. On a shared machine, use `OMP_NUM_THREADS=1` and `--cpu-time`, which measures processor
time.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from contrastive import make_step, spread, time_in_turn
from hydra import initialize_config_dir
from hydra.utils import instantiate

from sqakd.app.compose import compose_spec
from sqakd.kd.objective import Objective

CONF = Path(__file__).parents[1] / "conf"
LIKE = ("sqakd_released", "none_matched", "fsp_released", "cktf_released")  # their steps equal those of other options


def main() -> None:
    names = sorted(file.stem for file in (CONF / "kd").glob("*.yaml") if file.stem not in LIKE)
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--methods", nargs="+", choices=names, default=names, help="sqakd is always among them")
    options = parser.parse_args()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        methods: dict[str, Objective] = {
            name: instantiate(compose_spec([f"kd={name}"]).config["kd"]) for name in ["sqakd", *options.methods]
        }
    steps = {name: make_step(objective, options.batch, options.compile) for name, objective in methods.items()}
    clock = time.process_time if options.cpu_time else time.perf_counter
    rates = time_in_turn(steps, batch=options.batch, rounds=options.rounds, steps=options.steps, clock=clock)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()}, float32"
        f" {'compiled' if options.compile else 'eager'}{', processor time' if options.cpu_time else ''},"
        f" batch {options.batch}, n = {options.rounds}"
    )
    print(f"{'median (min - max)':20} {'images/s':>22} {'time / sqakd':>22} {'parameters':>12}")
    for name, values in rates.items():
        ratios = [plain / value for plain, value in zip(rates["sqakd"], values, strict=True)]
        parameters = sum(parameter.numel() for parameter in methods[name].parameters())
        print(f"{name:20} {spread(values, 0):>22} {spread(ratios, 2):>22} {parameters:>12,}")


if __name__ == "__main__":
    main()

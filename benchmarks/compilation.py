"""Processor time of compiling the training step, cold and from the folder of compiled code, and its kernels.

    python benchmarks/compilation.py [--rounds 2] [--bf16]

Each measurement is the first step of a new process, less its second step. A cold measurement begins with an empty
folder and is followed by a warm one. The time of compilers that the process starts counts too. Wall-clock time is
shorter where cores are idle, because the compilers run concurrently.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import step
import torch
from torch._inductor import metrics

from sqakd.training.code_cache import CodeCache


def cpu_seconds() -> tuple[float, float]:
    """Return the processor time of this process, and of the processes that it started and that have ended."""
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, others.ru_utime + others.ru_stime


def measure(folder: Path, *, quantized: bool, bf16: bool) -> dict[str, float]:
    """Take two steps, and return the seconds of compilation and the number of generated kernels."""
    assert CodeCache(folder).open() == ""
    _, take_step = step.make_task(quantized=quantized, compile=True, bf16=bf16, channels_last=True)
    times = [cpu_seconds()]
    for _ in range(2):
        take_step()
        times.append(cpu_seconds())
    own, others = zip(*times, strict=True)
    compilers = others[1] - others[0]
    seconds = compilers + own[1] - own[0] - (own[2] - own[1])
    return {"seconds": seconds, "compilers": compilers, "kernels": metrics.generated_kernel_count}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "STUDENT"), help="what the other processes do")
    arguments = parser.parse_args()
    if arguments.measure:
        folder, student = arguments.measure
        print(json.dumps(measure(Path(folder), quantized=student == "W2A2", bf16=arguments.bf16)))
        return
    own = [sys.executable, __file__, *(["--bf16"] if arguments.bf16 else []), "--measure"]
    found: dict[str, list[tuple[float, ...]]] = {"W2A2": [], "float": []}
    for _ in range(arguments.rounds):
        for student, rows in found.items():
            with tempfile.TemporaryDirectory() as folder:
                outputs = [
                    subprocess.run([*own, folder, student], check=True, capture_output=True, text=True).stdout
                    for _ in ("cold", "warm")
                ]
            cold, warm = (json.loads(output.splitlines()[-1]) for output in outputs)
            rows.append((cold["seconds"], cold["compilers"], warm["seconds"], cold["kernels"]))
    print(f"torch {torch.__version__}, {'bf16' if arguments.bf16 else 'float32'}, n = {arguments.rounds}")
    heads = ("cold", "of it C++ compiler", "warm")
    print(f"{'processor seconds, median (min - max)':40} {' '.join(f'{head:>20}' for head in heads)} {'kernels':>8}")
    for student, rows in found.items():
        *seconds, kernels = zip(*rows, strict=True)
        print(f"{student:40} {' '.join(f'{_spread(values):>20}' for values in seconds)} {kernels[0]:8.0f}")


def _spread(values: tuple[float, ...]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} - {max(values):.1f})"


if __name__ == "__main__":
    main()

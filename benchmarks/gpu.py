"""Everything that a GPU is needed for, in under ten minutes on one: tests, speed, memory, data path, kill and resume.

    python benchmarks/gpu.py [--rounds 7] [--steps 20] [--parts tests steps data resume]
    python benchmarks/gpu.py --dry                 the same on the CPU in small size, without compiled steps

- tests: those marked `gpu`, with torch's own detector of operations that wait for the GPU.
- steps: images per second and peak memory of a training step, eager, compiled and in bf16, for a W2A2 and a float
  student of `benchmarks/step.py`. All variants are built first, and each round times every variant once.
- data: images per second from the loader to the normalised batch on the GPU, for the images of `benchmarks/loader.py`.
- resume: a short run is killed and continued; its weights must be those of an uninterrupted run, bit for bit.

Without a GPU the benchmark says so and ends with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import loader
import step
import torch

ROOT = Path(__file__).parents[1]
VARIANTS: dict[str, dict[str, bool]] = {
    "eager float32": {"compile": False, "bf16": False, "channels_last": True},
    "compiled float32": {"compile": True, "bf16": False, "channels_last": True},
    "compiled bf16": {"compile": True, "bf16": True, "channels_last": True},
}
SMALL = ["dataset.limit=256", "model.net.blocks=1", "recipe.epochs=6", "teacher.recipe.epochs=1", "logger=none"]
# cuBLAS needs this to give equal bits in equal runs.
EQUAL_BITS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


class Failure(Exception):  # noqa: N818  # reported as one line
    """Raised when a part of the benchmark fails."""


def run_tests(options: argparse.Namespace) -> None:
    """Run the tests marked `gpu`."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/test_gpu.py", "-p", "no:cacheprovider"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise Failure("tests marked gpu have failed")


def time_steps(options: argparse.Namespace) -> None:
    """Print images per second, the ratio to the float student, and the peak memory of each variant."""
    if options.dry:
        step.BATCH = 8
    variants = {name: kind for name, kind in VARIANTS.items() if not (options.dry and kind["compile"])}
    steps: dict[tuple[str, bool], Callable[[], None]] = {}
    memory: dict[tuple[str, bool], float] = {}
    for name, kind in variants.items():
        for quantized in (True, False):
            _, one = step.make_task(quantized=quantized, **kind)
            before = _allocated()
            one()
            one()
            _reset_peak()
            one()
            steps[name, quantized], memory[name, quantized] = one, _peak() - before
    rates: dict[tuple[str, bool], list[float]] = {key: [] for key in steps}
    for _ in range(options.rounds):
        for key, one in steps.items():
            _wait()
            start = time.perf_counter()
            for _ in range(options.steps):
                one()
            _wait()
            rates[key].append(step.BATCH * options.steps / (time.perf_counter() - start))
    print(f"batch {step.BATCH}, n = {options.rounds} rounds of {options.steps} steps; images/s, median (min - max)")
    print("| | W2A2 student | float student | time W2A2 / float | peak memory W2A2 | float |")
    print("|---|---|---|---|---|---|")
    for name in variants:
        own, floats = rates[name, True], rates[name, False]
        ratio = statistics.median(f / q for f, q in zip(floats, own, strict=True))
        peaks = [f"{memory[name, which] / 1e6:,.0f} MB" for which in (True, False)]
        print(f"| {name} | {_spread(own)} | {_spread(floats)} | {ratio:.2f} | {peaks[0]} | {peaks[1]} |")


def time_data(options: argparse.Namespace) -> None:
    """Print images per second of the data path up to the normalised batch on the device."""
    count = 128 if options.dry else 12_800
    sets = {"CIFAR": loader.cifar(), "Tiny-ImageNet": loader.tiny_imagenet(count, None)}
    sets["CIFAR"].images = count if options.dry else sets["CIFAR"].images
    for name, data in sets.items():
        data.setup()
        rates = [_one_pass(data, epoch) for epoch in range(options.rounds + 1)][1:]  # the first pass warms up
        print(f"{name}: batch {data.batch_size}, n = {options.rounds} passes, {_spread(rates)} images/s")


def _one_pass(data: loader.RandomImages, epoch: int) -> float:
    """Return the images per second of one pass over the training images."""
    batches = data.train_dataloader()
    batches.sampler.set_epoch(epoch)
    _wait()
    start = time.perf_counter()
    for batch in batches:
        draws = {key: draw.to(_device(), non_blocking=True) for key, draw in batch.draws.items()}
        moved = batch._replace(image=batch.image.to(_device(), non_blocking=True), draws=draws)
        data.on_after_batch_transfer(moved, 0)
    _wait()
    return data.images / (time.perf_counter() - start)


def kill_and_resume(options: argparse.Namespace) -> None:
    """Kill a short run, continue it, and compare its weights with those of an uninterrupted run."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        train(runs, "whole")
        killed = start(runs, "killed")
        last = runs / "killed" / "seed0" / "checkpoints" / "last.ckpt"
        while killed.poll() is None and not last.exists():
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        if (runs / "killed" / "seed0" / "record.json").exists():
            raise Failure("the run ended before it was killed")
        train(runs, "killed")
        kept = [torch.load(runs / name / "seed0" / "weights.pt", weights_only=True) for name in ("whole", "killed")]
    whole, resumed = (content["weights"] for content in kept)
    if not all(torch.equal(value, resumed[name]) for name, value in whole.items()):
        raise Failure("the weights of a killed and continued run differ from those of an uninterrupted run")
    print("a killed and continued run has the weights of an uninterrupted run, bit for bit")


def start(runs: Path, name: str) -> subprocess.Popen[str]:
    """Start a short run on the device."""
    overrides = [*SMALL, f"name={name}", f"paths.runs={runs}", "trainer.deterministic=true"]
    overrides.append(f"trainer.accelerator={_device()}")
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *overrides],
        cwd=runs.parent,
        env=os.environ | EQUAL_BITS | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train(runs: Path, name: str) -> None:
    """Train a short run to its end."""
    process = start(runs, name)
    output, _ = process.communicate()
    if process.returncode != 0:
        raise Failure(f"the run {name} has failed:\n{output}")


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _allocated() -> int:
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} - {max(values):,.0f})"


PARTS = {"tests": run_tests, "steps": time_steps, "data": time_data, "resume": kill_and_resume}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--dry", action="store_true", help="on the CPU in small size; the figures mean nothing")
    options = parser.parse_args()
    if options.dry:
        options.rounds, options.steps = 1, 1
    elif not torch.cuda.is_available():
        sys.exit("this benchmark needs a CUDA GPU, and torch finds none; --dry runs its parts on the CPU in small size")
    name = "the CPU" if options.dry else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    failures = []
    for part in options.parts:
        print(f"\n## {part}", flush=True)
        began = time.perf_counter()
        try:
            PARTS[part](options)
        except Failure as failure:
            failures.append(f"{part}: {failure}")
        print(f"({time.perf_counter() - began:.0f} s)", flush=True)
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()

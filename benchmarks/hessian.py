"""Seconds of one estimate of all gradient scaling factors, relative to one training epoch: ResNet-20, W2A2.

    python benchmarks/hessian.py [--rounds 5] [--images 50000]

The estimate has the settings of `conf/callbacks/default.yaml`: 3 training batches with at most 4 probes each. The
time of an epoch is extrapolated to `--images` from a few steps (batch 256, eager float32, as in benchmarks/step.py).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch
from step import BATCH, make_task

from sqakd.dataset.batch import Batch
from sqakd.quantization.layers import quantizers
from sqakd.training.callbacks.hessian_scaling import HessianScaling

CALLBACK = HessianScaling(
    update_every=10, batches=3, batch_size=BATCH, slice_size=64, max_probes=4, tolerance=1e-3, epsilon=1e-12
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=50_000)
    options = parser.parse_args()
    task, step = make_task(quantized=True, compile=False, bf16=False, channels_last=True)
    targets = quantizers(task.student)
    batches = [Batch(torch.randn(BATCH, 3, 32, 32), None, torch.arange(BATCH), {}) for _ in range(3)]
    task.student.train()
    step()
    updates, steps = [], []
    for epoch in range(options.rounds):
        start = time.perf_counter()
        CALLBACK.update(task, targets, batches, epoch)
        middle = time.perf_counter()
        step()
        updates.append(middle - start)
        steps.append(time.perf_counter() - middle)
    epoch_seconds = statistics.median(steps) * options.images / BATCH
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()}, n = {options.rounds}")
    median = statistics.median(updates)
    print(f"update of {len(targets)} deltas: {median:.2f} s ({min(updates):.2f} - {max(updates):.2f})")
    print(f"epoch of {options.images:,} images: {epoch_seconds:.1f} s; ratio {median / epoch_seconds:.3f}")


if __name__ == "__main__":
    main()

"""Time of a step of the stage before the training of `kd=reconstruction`, eager and compiled.

    python benchmarks/stage.py [--batch 128] [--rounds 7] [--bf16] [--cpu-time]

The student is a W1A1 LSQ ResNet-20 with a float ResNet-20 as its teacher, channels_last. Each round times every variant
once, and the training step that follows the stage as well. On a shared machine, use `OMP_NUM_THREADS=1` and
`--cpu-time`, which measures processor time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import torch
from contrastive import LAYERS, spread, time_in_turn
from schemes import lsq
from step import RECIPE

from sqakd.kd.objective import Objective
from sqakd.kd.reconstruction import Reconstruction
from sqakd.models.resnet import CifarResNet
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.training.pretrain import Pretraining
from sqakd.training.task import Task


def make_steps(batch: int, *, compile: bool, bf16: bool) -> dict[str, Callable[[], None]]:
    """Return a function that takes one step of the stage, and one that takes a step of the training after it."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.randn(batch, 3, 32, 32)

    def make_task() -> Task:
        student = CifarResNet(blocks=3, num_classes=10)
        quantize(student, lsq(bits=1))
        calibrate(student, images)
        loss = Reconstruction(pretrain_share=0.25, pretrain_lr=None)
        task = Task(
            student=student,
            teacher=CifarResNet(blocks=3, num_classes=10),
            objective=Objective(
                ce=0.0, kl=1.0, feature=0.0, temperature=4.0, standardize=False, label_smoothing=0.0, feature_loss=loss
            ),
            recipe=RECIPE,
            num_classes=10,
            labelled=False,
            seed=0,
            compile=compile,
            channels_last=True,
            feature_layers=LAYERS,
            teacher_feature_layers=LAYERS,
        )
        task.build_feature_loss(images[:2], training_images=batch, labels=None)
        return task.to(device)

    task = make_task()
    shown = images.to(device).to(memory_format=task.format)
    stage = Pretraining(make_task(), shown[:2], epochs=1)
    optimizers = {"stage": stage.configure_optimizers(), "training": task.configure_optimizers()}
    losses: dict[str, Callable[[], torch.Tensor]] = {
        "stage": lambda: stage.computed_loss(shown),
        "training": lambda: task.losses(shown, None)["loss"],
    }

    def make_step(name: str) -> Callable[[], None]:
        def step() -> None:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                loss = losses[name]()
            optimizers[name].zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizers[name].step()

        return step

    return {name: make_step(name) for name in losses}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    steps = {
        f"{name}, {'compiled' if compile else 'eager'}": step
        for compile in (False, True)
        for name, step in make_steps(options.batch, compile=compile, bf16=options.bf16).items()
    }
    clock = time.process_time if options.cpu_time else time.perf_counter
    rates = time_in_turn(steps, batch=options.batch, rounds=options.rounds, steps=1, clock=clock)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()},"
        f" {'bf16' if options.bf16 else 'float32'}{', processor time' if options.cpu_time else ''},"
        f" batch {options.batch}, n = {options.rounds}"
    )
    print(f"{'median (min - max)':20} {'images/s':>22} {'time / eager':>22}")
    for name, values in rates.items():
        eager = rates[name.replace("compiled", "eager")]
        ratios = [plain / value for plain, value in zip(eager, values, strict=True)]
        print(f"{name:20} {spread(values, 0):>22} {spread(ratios, 2):>22}")


if __name__ == "__main__":
    main()

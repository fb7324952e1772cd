"""Images per second of a training step: a W2A2 ResNet-20 compared with a float one, both with the same teacher.

    python benchmarks/step.py [--rounds 7] [--steps 2] [--cpu-time] [--eager] [--delta 0.1]

All variants are built first. Each round then times every variant once, so that a change in the machine's speed affects
all of them. A step is the teacher's forward pass, the student's forward and backward pass, and the optimizer's step.
With --cpu-time, a step's time is that of the processor, which other jobs on the machine disturb less; the figures of
several threads include their waiting, so use one (OMP_NUM_THREADS=1). EWGS's delta is 0 until the curvature is first
estimated; --delta sets another.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from tqdm import tqdm

from sqakd.kd.objective import Objective
from sqakd.models.resnet import CifarResNet
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import Scheme, quantize
from sqakd.quantization.parameters import split_parameters
from sqakd.quantization.quantizers.ewgs import ActivationBounds, WeightBounds
from sqakd.quantization.quantizers.rounding import ElementWiseGradientScaling
from sqakd.training.recipe import Recipe
from sqakd.training.schedule import CosinePerEpoch
from sqakd.training.task import Task

BATCH = 256
EWGS = Scheme(
    weight=partial(WeightBounds, bits=2, start="paper"),
    input=partial(ActivationBounds, bits=2, start="paper"),
    rounding=partial(ElementWiseGradientScaling, delta="hessian"),
    per_channel=False,
    output_scale=True,
    first_last="float",
    start=None,
    outer="float",
)
RECIPE = Recipe(
    epochs=1,
    batch_size=BATCH,
    calibration_batches=1,
    accumulate=1,
    gradient_clip=None,
    optimizer=partial(torch.optim.Adam, fused=True),
    schedule=CosinePerEpoch(),
    lr=1e-3,
    quantizer_lr=1e-5,
    weight_decay=1e-4,
    label_smoothing=0.0,
)


def make_task(
    *, quantized: bool, compile: bool, bf16: bool, channels_last: bool, delta: float = 0.0
) -> tuple[Task, Callable[[], None]]:
    """Return a task, and a function that takes one training step of this task on fixed random images."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.randn(BATCH, 3, 32, 32)
    student = CifarResNet(blocks=3, num_classes=10)
    if quantized:
        quantize(student, EWGS)
        calibrate(student, images)
    for module in student.modules():
        if isinstance(module, ElementWiseGradientScaling):
            module.delta.fill_(delta)
    task = Task(
        student=student,
        teacher=CifarResNet(blocks=3, num_classes=10),
        objective=Objective(
            ce=0.0, kl=1.0, feature=0.0, temperature=4.0, standardize=False, label_smoothing=0.0, feature_loss=None
        ),
        recipe=RECIPE,
        num_classes=10,
        labelled=False,
        seed=0,
        compile=compile,
        channels_last=channels_last,
    ).to(device)
    optimizer = RECIPE.make_optimizer(*split_parameters(task.student))
    images = images.to(device).to(memory_format=task.format)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = task.losses(images, None)["loss"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return task, step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="measure seconds of the processor, not of a clock")
    parser.add_argument("--eager", action="store_true", help="measure no compiled step")
    parser.add_argument("--delta", type=float, default=0.0, help="EWGS's gradient scaling")
    arguments = parser.parse_args()
    variants = {
        "eager float32": {"compile": False, "bf16": False, "channels_last": False},
        "eager float32 channels_last": {"compile": False, "bf16": False, "channels_last": True},
        "compiled float32 channels_last": {"compile": True, "bf16": False, "channels_last": True},
        "compiled bf16 channels_last": {"compile": True, "bf16": True, "channels_last": True},
    }
    if arguments.eager:
        variants = {name: options for name, options in variants.items() if not options["compile"]}
    # Each variant and student needs a graph of its own; the default limit is eight recompilations per function.
    torch._dynamo.config.recompile_limit = 64
    steps = {
        (name, quantized): make_task(quantized=quantized, delta=arguments.delta, **options)[1]
        for name, options in variants.items()
        for quantized in (True, False)
    }
    for step in tqdm(steps.values(), desc="compiling and warming up", disable=None):
        step()
        step()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    rates: dict[tuple[str, bool], list[float]] = {key: [] for key in steps}
    for _ in tqdm(range(arguments.rounds), desc="timing", disable=None):
        for key, step in steps.items():
            start = clock()
            for _ in range(arguments.steps):
                step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            rates[key].append(BATCH * arguments.steps / (clock() - start))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()}, load average"
        f" {os.getloadavg()[0]:.1f}, n = {arguments.rounds}"
    )
    print(f"{'images/s, median (min - max)':32} {'W2A2 student':>22} {'float student':>22} {'time W2A2 / float':>20}")
    for name in variants:
        quantized, floats = rates[name, True], rates[name, False]
        ratios = [f / q for f, q in zip(floats, quantized, strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
        print(f"{name:32} {_spread(quantized):>22} {_spread(floats):>22} {ratio:>20}")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} - {max(values):.0f})"


if __name__ == "__main__":
    main()

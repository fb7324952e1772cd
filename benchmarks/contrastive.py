"""Images per second of a training step with contrastive losses, compared with plain distillation.

    python benchmarks/contrastive.py [--batch 256] [--rounds 7] [--steps 2] [--compile] [--cpu-time] [--losses kd crd]

The student is a W2A2 EWGS ResNet-20, the teacher a float ResNet-20. The memory bank has 50,000 images of ten classes
with random features and labels. In addition to the losses of this project, the benchmark times the two obvious
implementations of CRD: K + 1 memories gathered for each image, and each image compared with the whole memory. Each
round times every loss once. On a shared machine, use `OMP_NUM_THREADS=1` and `--cpu-time`, which measures processor
time.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from step import EWGS, RECIPE
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from sqakd.kd.base import FeatureBatch, FeatureLoss
from sqakd.kd.cktf import ContrastiveTransfer
from sqakd.kd.contrastive import ContrastiveDistillation
from sqakd.kd.nce import contrastive_loss
from sqakd.kd.objective import Objective
from sqakd.kd.shapes import vector
from sqakd.models.resnet import CifarResNet
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.quantization.parameters import split_parameters
from sqakd.training.task import Task

IMAGES, CLASSES = 50_000, 10
LAYERS = ["layer1:input", "layer1", "layer2", "layer3", "bn2:input"]
CRD: dict[str, Any] = {"width": 128, "negatives": 16_384, "temperature": 0.1, "momentum": 0.5}


class Gathered(ContrastiveDistillation):
    """CRD with a list of negatives for each image, whose memories are gathered into one tensor."""

    def draw(self, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        super().draw(index, generator)
        size = (len(index), self.negatives)
        return {"negatives": torch.randint(IMAGES, size, generator=generator, device=index.device)}

    def forward(self, seen: FeatureBatch) -> list[Tensor]:
        contrast: Any = self.contrasts[0]
        s = F.normalize(contrast.student(vector(seen.student[0]).float()))
        t = F.normalize(contrast.teacher(vector(seen.teacher[0]).float()))
        places = torch.cat([seen.index[:, None], seen.draws["negatives"]], dim=1)
        loss = s.new_zeros(())
        for anchor, memory in ((s, contrast.teacher_memory), (t, contrast.student_memory)):
            logits = (memory.bank[places] @ anchor[:, :, None]).squeeze(2) / self.temperature
            others, ones = logits[:, 1:], torch.ones_like(logits[:, 0])
            odds = torch.tensor(math.log(self.negatives), device=s.device)
            loss = loss + contrastive_loss(logits[:, 0], others, torch.ones_like(others).bool(), ones, odds)
        contrast.pending = seen.index, s.detach(), t.detach(), torch.zeros(2, device=s.device)
        return [loss]


class Whole(ContrastiveDistillation):
    """CRD with each image compared with the whole memory, from which its negatives are then chosen."""

    def draw(self, index: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        self.sampler.candidates = IMAGES
        return super().draw(index, generator)


LOSSES: dict[str, Callable[[], FeatureLoss] | None] = {
    "kd": None,
    "crd": partial(ContrastiveDistillation, **CRD),
    "crd, whole memory": partial(Whole, **CRD),
    "crd, gathered": partial(Gathered, **CRD),
    "cktf": partial(ContrastiveTransfer, **CRD | {"negatives": 4_096}, intermediate=0.8, window=8, normalise="image"),
}


def beside_labels(loss: FeatureLoss | None) -> Objective:
    """Return the objective of the labels and `loss`, or of the labels and the KL if `loss` is None."""
    return Objective(
        ce=1.0,
        kl=float(loss is None),
        feature=float(loss is not None),
        temperature=4.0,
        standardize=False,
        label_smoothing=0.0,
        feature_loss=loss,
    )


def make_step(objective: Objective, batch: int, compile: bool) -> Callable[[], None]:
    """Return a function that takes one training step with an objective; its loss gets its parameters here."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, label = torch.randn(batch, 3, 32, 32), torch.randint(CLASSES, (batch,))
    student, teacher = CifarResNet(blocks=3, num_classes=CLASSES), CifarResNet(blocks=3, num_classes=CLASSES)
    quantize(student, EWGS)
    calibrate(student, images)
    task = Task(
        student=student,
        teacher=teacher if objective.needs_teacher else None,
        objective=objective,
        recipe=RECIPE,
        num_classes=CLASSES,
        labelled=True,
        seed=0,
        compile=compile,
        channels_last=True,
        feature_layers=LAYERS,
        teacher_feature_layers=LAYERS,
    )
    task.build_feature_loss(images[:2], training_images=IMAGES, labels=torch.randint(CLASSES, (IMAGES,)))
    task.to(device)
    network, quantizer = split_parameters(task.student)
    optimizer = RECIPE.make_optimizer([*network, *objective.parameters()], quantizer)
    images, label = images.to(device).to(memory_format=task.format), label.to(device)
    generator = torch.Generator(device).manual_seed(0)

    def step() -> None:
        index = torch.randperm(IMAGES, generator=generator, device=device)[:batch]
        losses = task.losses(images, label, index, objective.draw(index, generator))
        optimizer.zero_grad()
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        objective.after_backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), help="kd is always among them")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    losses = {name: loss for name, loss in LOSSES.items() if name in ("kd", *options.losses)}
    steps = {
        name: make_step(beside_labels(loss() if loss else None), options.batch, options.compile)
        for name, loss in losses.items()
    }
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()}, float32"
        f" {'compiled' if options.compile else 'eager'}{', processor time' if options.cpu_time else ''},"
        f" batch {options.batch}, n = {options.rounds}"
    )
    print(f"{'images/s, median (min - max)':32} {'':>22} {'time / kd, median (min - max)':>30}")
    rates = time_in_turn(steps, batch=options.batch, rounds=options.rounds, steps=options.steps, clock=clock)
    for name, values in rates.items():
        ratios = [plain / value for plain, value in zip(rates["kd"], values, strict=True)]
        print(f"{name:32} {spread(values, 0):>22} {spread(ratios, 2):>30}")


def time_in_turn(
    variants: dict[str, Callable[[], None]], *, batch: int, rounds: int, steps: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return the images per second of each variant in each round."""
    for step in tqdm(variants.values(), desc="compiling and warming up", disable=None):
        for _ in range(3):  # a contrastive loss is compiled again in its second step, when Z is known
            step()
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for _ in tqdm(range(rounds), desc="timing", disable=None):
        for name, step in variants.items():
            start = clock()
            for _ in range(steps):
                step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            rates[name].append(batch * steps / (clock() - start))
    return rates


def spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


if __name__ == "__main__":
    main()

"""The tests for a GPU: steps on it give the CPU's numbers and do not wait, augmentation equals the CPU's.

Without a GPU the first cases run on the CPU, so that this file cannot break unnoticed. With a GPU, torch itself raises
an exception where a step waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import small
import step_cases
import torch
from hydra.utils import instantiate
from step_cases import losses_of, make_case
from torch import Tensor

from sqakd.training.task import Task

pytestmark = pytest.mark.gpu
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
CASES = [case for case in step_cases.cases() if not case.marks][: None if GPU else 2]
each_case = pytest.mark.parametrize(("quantizer", "kd"), CASES)


@contextmanager
def without_waiting() -> Iterator[None]:
    """Raise an exception where an operation within the block waits for the GPU."""
    if GPU:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if GPU:
            torch.cuda.set_sync_debug_mode("default")


def batch_of(seed: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    images, label, index = step_cases.images_of(seed), step_cases.labels_of(step_cases.BATCH), step_cases.index_of(seed)
    return images.to(device), label.to(device), index.to(device)


def step(task: Task, batch: tuple[Tensor, Tensor, Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
    losses = losses_of(task, *batch)
    optimizer.zero_grad()
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    task.objective.after_backward()
    optimizer.step()
    return losses["loss"].detach()


@each_case
def test_step_does_not_wait_for_the_gpu(quantizer: str, kd: str) -> None:
    task = make_case(quantizer, kd).to(DEVICE)
    optimizer, batches = task.configure_optimizers(), [batch_of(seed, DEVICE) for seed in range(3)]
    values = [step(task, batches[0], optimizer)]  # the first step of a contrastive loss may wait
    with without_waiting():
        values += [step(task, batch, optimizer) for batch in batches[1:]]
    assert all(bool(value.isfinite()) for value in values)


@each_case
def test_losses_and_gradients_are_those_of_the_cpu(quantizer: str, kd: str) -> None:
    if kd in ("crd", "cktf"):
        pytest.skip("its random numbers depend on the device")
    tasks = make_case(quantizer, kd), make_case(quantizer, kd).to(DEVICE)
    found = []
    for task, device in zip(tasks, ("cpu", DEVICE), strict=True):
        loss = losses_of(task, *batch_of(0, device))["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in task.student.parameters() if parameter.grad is not None]
        found.append([loss.detach().cpu(), *(gradient.cpu() for gradient in gradients)])
    for a, b in zip(*found, strict=True):
        # One value at a threshold may get another code, which changes few elements.
        off = (a - b).abs() > 1e-3 * a.abs().max() + 1e-7
        assert float(off.float().mean()) <= 0.05


@pytest.mark.parametrize("dataset", ["cifar10", "tiny_imagenet"][: None if GPU else 1])
def test_augmented_images_are_those_of_the_cpu(dataset: str) -> None:
    data = small.images()
    data.augment = instantiate(small.config(f"dataset={dataset}").dataset.augment)
    names = ("trivial", "cutmix")
    data.extend({name: instantiate(small.config(f"plus={name}").plus[name]) for name in names})
    batch = next(iter(data.train_dataloader()))
    expected = data.on_after_batch_transfer(batch, 0).image
    draws: dict[str, Any] = {name: draw.to(DEVICE) for name, draw in batch.draws.items()}
    got = data.on_after_batch_transfer(batch._replace(image=batch.image.to(DEVICE), draws=draws), 0).image.cpu()
    assert float(((got - expected).abs() > 0.05).float().mean()) < 0.01  # a rounded grey value may differ by one

"""A training step does all its work on the accelerator and never waits for it; checked without an accelerator.

A made-up device computes forward, backward and optimizer with true values (`tests/support/made_up_device.py`). Made-up
CUDA tensors, which have no values, go through the forward passes: they show code that treats "cuda" differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import small
import step_cases
import torch
from hydra.utils import instantiate
from made_up_device import Event, MadeUp, made_up_device, values
from step_cases import losses_of, make_case
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.batch import Batch
from sqakd.dataset.transforms.augment import Augment
from sqakd.kd.contrastive import Contrastive
from sqakd.quantization.layers import quant_layers
from sqakd.training.callbacks.dampening import pull
from sqakd.training.task import Task

each_pair = pytest.mark.parametrize(("quantizer", "kd"), step_cases.cases())
each_quantizer = pytest.mark.parametrize("quantizer", [name for name in step_cases.QUANTIZERS if name != "none"])


def batch_of(seed: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, labels and positions on a device."""
    images, label, index = step_cases.images_of(seed), step_cases.labels_of(step_cases.BATCH), step_cases.index_of(seed)
    return images.to(device), label.to(device), index.to(device)


def two_steps(task: Task, device: str, take: Callable[[], list[Event]] = list) -> tuple[list[Tensor], list[Event]]:
    """Take two optimizer steps on a device; return all numbers, and the events of both steps."""
    optimizer, found, events = task.configure_optimizers(), [], []
    for seed in range(2):
        batch = batch_of(seed, device)
        take()
        losses = losses_of(task, *batch)
        task.train_means.add(losses, step_cases.BATCH)
        optimizer.zero_grad()
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        task.objective.after_backward()
        gradients = [parameter.grad for parameter in task.parameters()]
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        found += values([*losses.values(), *gradients])
        events += take()
    return [*found, *values(task.state_dict().values())], events


@each_pair
def test_step_does_not_wait_for_the_device_and_gives_the_numbers_of_the_cpu(quantizer: str, kd: str) -> None:
    expected, _ = two_steps(make_case(quantizer, kd), "cpu")
    task = make_case(quantizer, kd)
    with made_up_device() as recorder:
        got, events = two_steps(task.to("meta"), "meta", recorder.take)
    known = {"kd/contrastive_term.py check_z"} if kd.startswith(("crd", "cktf")) else set()  # until the first step
    assert {event.place for event in events} == known
    assert len(got) == len(expected)
    assert all(torch.equal(a.detach(), b.detach()) for a, b in zip(got, expected, strict=True))


def test_step_with_rounded_residual_sums_does_not_wait_for_the_device() -> None:
    def task() -> Task:
        student = small.quantized("quantizer=lsq", "residual_bits=8")
        return small.make_task(student, small.network(seed=1), "kd=sqakd", "recipe=digits")

    expected, _ = two_steps(task(), "cpu")
    moved = task()
    with made_up_device() as recorder:
        got, events = two_steps(moved.to("meta"), "meta", recorder.take)
    assert events == []
    for a, b in zip(got, expected, strict=True):  # one processor adds a network of this size in another order
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-5, atol=1e-7)


@each_quantizer
def test_dampening_and_evaluation_do_not_wait_for_the_device(quantizer: str) -> None:
    task = make_case(quantizer, "kd")
    with made_up_device() as recorder:
        task.to("meta")
        images, label, index = batch_of(0, "meta")
        recorder.take()
        for _, layer in quant_layers(task.student):
            assert isinstance(pull(layer), MadeUp)
        with torch.no_grad():
            task.eval().validation_step(Batch(images, label, index, {}), 0)
        scores = task.scores.take()
        assert recorder.take() == []
    assert scores.keys() == {"val/top1", "val/top5", "val/agreement", "val/kl"}


def augmented(dataset: str, *steps: str) -> ImageDataModule:
    """Return random images with the augmentation of a data set and of add-ons."""
    folder = ["dataset.folder=any", "dataset.augment.padding=2"] if dataset == "imagefolder" else []
    parts, data = small.config(f"dataset={dataset}", *folder).dataset, small.images()
    augment: Augment | None = instantiate(parts.get("augment"))
    data.augment, data.evaluate = augment, instantiate(parts.get("evaluate"))
    data.extend({name: instantiate(small.config(f"plus={name}").plus[name]) for name in steps})
    return data


@pytest.mark.parametrize("steps", [(), ("trivial", "cutmix")], ids=["plain", "add-ons"])
@pytest.mark.parametrize("dataset", ["digits", "cifar10", "tiny_imagenet", "imagefolder"])
def test_augmentation_does_not_wait_for_the_device(dataset: str, steps: tuple[str, ...]) -> None:
    data = augmented(dataset, *steps)
    training, plain = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    expected = [data.on_after_batch_transfer(batch, 0).image for batch in (training, plain)]
    with made_up_device() as recorder:
        draws = {name: draw.to("meta") for name, draw in training.draws.items()}
        batches = [training._replace(image=training.image.to("meta"), draws=draws)]
        batches.append(plain._replace(image=plain.image.to("meta")))
        data.on_after_batch_transfer(batches[1], 0)  # the first batch copies mean and deviation
        recorder.take()
        got = [data.on_after_batch_transfer(batch, 0).image for batch in batches]
        assert recorder.take() == []
    assert all(torch.equal(a, b) for a, b in zip(values(got), expected, strict=True))


# made-up CUDA tensors


@contextmanager
def fake_cuda(task: Task) -> Iterator[FakeTensorMode]:
    """Move a task to a CUDA device that does not exist; reading a value raises an exception."""
    with FakeTensorMode() as mode:
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            task._apply(lambda tensor: mode.from_tensor(tensor).to("cuda"))
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(False)
        yield mode


@each_pair
def test_losses_and_scores_of_made_up_cuda_tensors_read_no_value(quantizer: str, kd: str) -> None:
    task, batch = make_case(quantizer, kd), batch_of(0, "cpu")
    with fake_cuda(task) as mode:
        images, label, index = (mode.from_tensor(tensor).to("cuda") for tensor in batch)
        draws: dict[str, Any] = {}
        if isinstance(loss := task.objective.feature_loss, Contrastive):
            draws = loss.sampler.draw(index, None)  # type: ignore[arg-type]  # no generator of a device without values
        losses = task.eager_losses(images, label, index, draws)
        assert {value.device.type for value in losses.values()} == {"cuda"}
        with torch.no_grad():
            task.eval().validation_step(Batch(images, label, index, {}), 0)
        with pytest.raises(DataDependentOutputException):  # the check of the check
            bool(losses["loss"] > 0)

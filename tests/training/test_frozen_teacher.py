"""The teacher is frozen: evaluation mode, no gradient, in no optimizer, in no checkpoint, bit-identical afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from torch import Tensor, nn

from sqakd.training.evaluate import evaluate
from sqakd.training.task import Task

WORDS = ("recipe.epochs=1",)
OBJECTIVES = ["kd=sqakd", "kd=kd"]


class Noisy(nn.Module):
    """A network with parts that behave differently in training: batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.dropout = small.network(seed=7), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.dropout(self.net(x))
        return logits


def distilling(*words: str) -> Task:
    return small.make_task(small.quantized("quantizer=ewgs"), Noisy(), *WORDS, *words)


def teacher_of(task: Task) -> nn.Module:
    assert task.teacher is not None
    return task.teacher


def tensors(tree: Any) -> Iterator[Tensor]:
    """Yield all tensors in a checkpoint at any depth."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from tensors(value)


@pytest.mark.parametrize("limit", [2**28, 0])
def test_each_validation_batch_meets_the_teacher_once_in_a_training(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more logits than may be kept, the scores are the same."""
    monkeypatch.setattr("sqakd.training.task.KNOWN_BYTES", limit)
    task = small.make_task(small.quantized("quantizer=ewgs"), small.network(seed=7), "kd=at", "recipe.epochs=3")
    seen: list[int] = []

    def count(module: nn.Module, given: Any, logits: Tensor) -> None:
        if not torch.is_grad_enabled() and not task.training:
            seen.append(len(logits))

    teacher_of(task).register_forward_hook(count)
    task.build_feature_loss(small.batch(2), training_images=small.TRAIN, labels=None)
    fitted = small.fit(task, tmp_path)
    batches = len(small.images().val_dataloader())
    assert len(seen) == (batches if limit else 3 * batches)
    last = {name: float(value) for name, value in fitted.callback_metrics.items() if name.startswith("val/")}
    scores = evaluate(task.eval(), small.images(), fitted)
    assert last == {f"val/{name}": value for name, value in scores.items()}


def test_the_teacher_stays_in_evaluation_mode() -> None:
    task = distilling()
    for _ in range(2):
        task.train()
        assert not any(module.training for module in teacher_of(task).modules())
        assert all(module.training for module in task.student.modules())
        task.eval()
    images = small.batch(4)
    task.train()
    assert torch.equal(task.teacher_logits(images), task.teacher_logits(images))  # type: ignore[arg-type]


def test_the_teacher_has_no_gradient() -> None:
    task = distilling()
    assert not any(parameter.requires_grad for parameter in teacher_of(task).parameters())
    logits = task.teacher_logits(small.batch(4).requires_grad_())
    assert logits is not None
    assert not logits.requires_grad
    assert logits.grad_fn is None
    task.losses(small.batch(4), None)["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in teacher_of(task).parameters())
    assert any(parameter.grad is not None for parameter in task.student.parameters())


def test_the_teacher_is_in_no_optimizer() -> None:
    task = distilling()
    its_own = set(teacher_of(task).parameters())
    optimized = [parameter for group in task.configure_optimizers().param_groups for parameter in group["params"]]
    assert its_own.isdisjoint(task.parameters())
    assert its_own.isdisjoint(optimized)
    assert set(optimized) == set(task.student.parameters())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_teacher_is_in_no_checkpoint(objective: str, tmp_path: Path) -> None:
    task = distilling(objective)
    trainer = small.fit(task, tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    students = {f"student.{name}" for name in task.student.state_dict()}
    for state in (task.state_dict(), checkpoint["state_dict"]):
        assert students < state.keys()
        assert not [name for name in state.keys() - students if not name.startswith("train_means.")]
    saved = [tensor for tensor in tensors(checkpoint) if tensor.is_floating_point()]
    assert any(torch.equal(tensor, task.student.get_parameter("conv1.weight")) for tensor in saved)
    for parameter in teacher_of(task).parameters():
        if parameter.ndim > 1:  # vectors of batch norm are all ones or zeros
            assert not any(torch.equal(tensor, parameter) for tensor in saved)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_leaves_the_teacher_bit_identical(objective: str, tmp_path: Path) -> None:
    task = distilling(objective, "recipe.weight_decay=0.1")
    teacher = teacher_of(task)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = {name: tensor.clone() for name, tensor in task.student.state_dict().items()}
    small.fit(task, tmp_path)
    assert task.teacher is teacher
    assert list(teacher.state_dict()) == list(before)
    assert {"net.bn1.running_mean", "net.bn1.running_var", "net.bn1.num_batches_tracked"} <= before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not any(module.training for module in teacher.modules())
    changed = [name for name, tensor in task.student.state_dict().items() if not torch.equal(tensor, student[name])]
    assert {"conv1.weight", "bn1.running_mean"} <= set(changed), "the student has learned meanwhile"


def test_the_teacher_follows_to_another_precision_and_device() -> None:
    task = distilling()
    assert task.double() is task
    floats = [t for t in teacher_of(task).state_dict().values() if t.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {torch.float64}
    logits = task.teacher_logits(small.batch(2).double())
    assert logits is not None
    assert logits.dtype == torch.float64
    task.to("meta")
    assert {tensor.device.type for tensor in teacher_of(task).state_dict().values()} == {"meta"}
    assert not any(parameter.requires_grad for parameter in teacher_of(task).parameters())


def test_a_task_without_a_teacher_has_none() -> None:
    task = small.make_task(small.network(), None, "quantizer=none")
    assert task.teacher is None
    assert task.teacher_logits(small.batch(2)) is None
    assert task.double().teacher is None

"""The moving average against its recurrence, and batch-norm statistics against the batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import small
import torch
from torch import Tensor, nn

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.quantization.layers import quant_layers
from sqakd.quantization.residual import residual_sums
from sqakd.training.callbacks.batch_norm import BatchNormStatistics, measure
from sqakd.training.callbacks.ema import WeightAverage
from sqakd.training.task import Task

STEPS, EPOCHS = 3, 3


def distilling(*overrides: str) -> Task:
    overrides = (f"recipe.epochs={EPOCHS}", "recipe.lr=0.01", "recipe.batch_size=8", *overrides)
    return small.make_task(small.quantized("quantizer=ewgs"), small.network(seed=7), *overrides)


def real(task: Task) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in task.student.state_dict().items() if v.is_floating_point()}


class Watch(pl.Callback):
    """Records the student's tensors after each step and while it is evaluated."""

    def __init__(self) -> None:
        self.trained: list[dict[str, Tensor]] = []
        self.evaluated: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.trained.append(real(pl_module))

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.evaluated.append(real(pl_module))


def same(a: dict[str, Tensor], b: dict[str, Tensor], *, rtol: float = 0.0) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=rtol, atol=rtol) for k in a)


# The moving average.


@pytest.mark.parametrize("epochs", [0.5, 1.0, 1000.0])
def test_the_average_follows_its_recurrence(epochs: float, tmp_path: Path) -> None:
    task, watch = distilling(), Watch()
    expected = real(task)
    small.fit(task, tmp_path, callbacks=[watch, WeightAverage(epochs=epochs)])
    averages = []
    for n, values in enumerate(watch.trained):
        d = min(max(0.0, 1 - 1 / (epochs * STEPS)), (1 + n) / (10 + n))
        expected = {k: d * a + (1 - d) * values[k] for k, a in expected.items()}
        averages.append(expected)
    assert len(averages) == STEPS * EPOCHS
    batches = len(watch.evaluated) // EPOCHS
    for epoch in range(EPOCHS):
        for seen in watch.evaluated[epoch * batches : (epoch + 1) * batches]:
            assert same(seen, averages[STEPS * (epoch + 1) - 1], rtol=1e-5)
    assert same(real(task), averages[-1], rtol=1e-5)
    assert not same(watch.evaluated[-1], watch.trained[-1], rtol=1e-5)


def test_memory_shorter_than_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SqakdError, match=r"epochs=0\.1: .* is no longer than one of the 3 optimizer steps") as error:
        small.fit(distilling(), tmp_path, callbacks=[WeightAverage(epochs=0.1)])
    assert "plus.ema.epochs=2" in explain(error.value)


def test_averages_do_not_change_the_training(tmp_path: Path) -> None:
    with_it, without = Watch(), Watch()
    small.fit(distilling(), tmp_path, callbacks=[WeightAverage(epochs=1.0), BatchNorm(), with_it])
    small.fit(distilling(), tmp_path, callbacks=[without])
    learned = {name for name, _ in distilling().student.named_parameters()}
    for a, b in zip(with_it.trained, without.trained, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in learned)


def test_exchange_undoes_itself_where_modules_share_a_tensor() -> None:
    student = small.quantized("quantizer=lsq", "residual_bits=8")
    task, ema = small.make_task(student, small.network(), "kd=sqakd", "recipe=digits"), WeightAverage(epochs=1.0)
    ema._restart(task)
    for average in ema.average.values():
        average += 1
    before = {name: value.clone() for name, value in student.state_dict().items()}
    ema._swap(task)
    step = residual_sums(student)[0][1].quantizer.step
    assert step.item() == pytest.approx(1 + float(before["layer1.0.sum.quantizer.step"]))
    ema._swap(task)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_average_restarts_where_bits_change(tmp_path: Path) -> None:
    class Lower(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                for _, layer in quant_layers(pl_module.student):
                    layer.weight_quantizer.bits = 1

    watch, average = Watch(), WeightAverage(epochs=1000.0)
    small.fit(distilling(), tmp_path, callbacks=[Lower(), watch, average])
    assert average.updates == STEPS - 1
    expected = watch.trained[2 * STEPS]
    for n, values in enumerate(watch.trained[2 * STEPS + 1 :]):
        d = (1 + n) / (10 + n)
        expected = {k: d * a + (1 - d) * values[k] for k, a in expected.items()}
    assert same(watch.evaluated[-1], expected, rtol=1e-5)


@pytest.mark.parametrize("epochs", [0.0, -1.0, float("nan"), float("inf"), "abc", True, None])
def test_memory_without_a_length_is_refused(epochs: Any) -> None:
    with pytest.raises(ValueError, match=r"^epochs=.*: expected a number above 0"):
        WeightAverage(epochs=epochs)


# Batch-norm statistics.


def BatchNorm(**changes: Any) -> BatchNormStatistics:  # noqa: N802  # short for the class
    return BatchNormStatistics(**{"batches": 2, "batch_size": 8, "augmented": False} | changes)


def test_statistics_are_the_plain_average_over_batches() -> None:
    task = distilling()
    batches = [small.batch(8, seed) for seed in (1, 2, 3)]
    inputs: dict[nn.Module, list[Tensor]] = {}
    norms = [m for m in task.student.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [m.register_forward_pre_hook(lambda m, args: inputs.setdefault(m, []).append(args[0])) for m in norms]
    modes = [m.training for m in task.student.modules()]
    measure(task, batches)
    assert [m.training for m in task.student.modules()] == modes
    for hook in hooks:
        hook.remove()
    assert len(norms) >= 7
    for norm in norms:
        assert norm.momentum == 0.1
        assert norm.running_mean is not None
        assert norm.running_var is not None
        seen = inputs[norm]
        mean = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
        var = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen]).mean(0)
        assert torch.allclose(norm.running_mean, mean, atol=1e-5)
        assert torch.allclose(norm.running_var, var, rtol=1e-4, atol=1e-6)


def test_second_measurement_changes_nothing() -> None:
    """Earlier statistics have no influence, and no other state is left behind."""
    task, batches = distilling(), [small.batch(8, 1), small.batch(8, 2)]
    measure(task, batches)
    first, random = real(task), torch.get_rng_state()
    measure(task, batches)
    assert same(first, real(task))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in task.parameters())


def test_dropout_stays_inactive() -> None:
    task = distilling()
    task.student.layer1.append(nn.Dropout(0.9))  # type: ignore[union-attr, operator]
    measure(task, [small.batch(8)])
    once = real(task)
    measure(task, [small.batch(8)])
    assert same(once, real(task))


def test_network_without_batch_norm_does_not_run() -> None:
    task = distilling()
    for parent in list(task.student.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    runs: list[object] = []
    task.student.register_forward_hook(lambda *_: runs.append(0))
    measure(task, [small.batch(8)])
    assert runs == []


@pytest.mark.parametrize(
    ("augmented", "batch_size", "expected"), [(False, 8, [8, 8]), (True, 8, [8, 8]), (False, 64, [24])]
)
def test_statistics_are_measured_on_training_images(
    augmented: bool, batch_size: int, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Tensor]] = []
    monkeypatch.setattr("sqakd.training.callbacks.batch_norm.measure", lambda _, batches: seen.append(batches))
    small.fit(distilling(), tmp_path, callbacks=[BatchNorm(augmented=augmented, batch_size=batch_size)])
    assert [[len(images) for images in epoch] for epoch in seen] == [expected] * EPOCHS
    assert not torch.equal(seen[0][0], seen[1][0]), "each epoch has another random choice"
    data = small.images()
    plain = data.on_after_batch_transfer(
        next(iter(data.train_dataloader()))._replace(image=data.train_images, draws={}), 0
    )
    known = {tuple(image.flatten()[:50].tolist()) for image in plain.image}
    assert all(tuple(image.flatten()[:50].tolist()) in known for image in seen[0][0]) != augmented


@pytest.mark.parametrize("name", ["batches", "batch_size"])
def test_measuring_on_no_images_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=0: expected a whole number"):
        BatchNorm(**{name: 0})

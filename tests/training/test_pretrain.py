"""The stage before the training: the parameters that it trains, and its resumption after a kill."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import command
import pytest
import small
import torch
from torch import Tensor

from sqakd.advice import explain
from sqakd.kd.factor import FactorTransfer
from sqakd.models.resnet import CifarResNet
from sqakd.quantization.parameters import split_parameters
from sqakd.runs.checkpoint import save_weights
from sqakd.training.callbacks.divergence import DivergenceError
from sqakd.training.compiled_step import CompiledStep
from sqakd.training.pretrain import Pretraining
from sqakd.training.task import Task

SHORT = ("recipe.epochs=1", "recipe.batch_size=8", "kd.feature_loss.pretrain_epochs=2")


def make(*overrides: str) -> Task:
    return small.make_staged_task(*SHORT, *overrides)


def state(task: Task) -> dict[str, Tensor]:
    assert task.teacher is not None
    teacher = {f"teacher.{name}": value for name, value in task.teacher.state_dict().items()}
    return {name: value.clone() for name, value in (task.state_dict() | teacher).items()}


def changed(task: Task, folder: Path) -> set[str]:
    """Run the stage and return the names of the tensors that it changes."""
    before = state(task)
    required = {name: p.requires_grad for name, p in task.named_parameters()}
    small.pretrain(task, folder)
    assert {name: p.requires_grad for name, p in task.named_parameters()} == required
    return {name for name, value in state(task).items() if not torch.equal(value, before[name])}


def test_factor_transfer_trains_only_its_paraphraser(tmp_path: Path) -> None:
    task = make("kd=ft")
    moved = changed(task, tmp_path)
    loss = "objective.feature_loss"
    assert moved == {name for name in task.state_dict() if name.startswith((f"{loss}.paraphrase", f"{loss}.restore"))}


def after(name: str) -> bool:
    """Return whether a layer comes after the last map, so that the loss of FSP does not depend on it."""
    return name.startswith(("student.bn2", "student.linear"))


def test_fsp_trains_the_student_weights_that_its_loss_depends_on(tmp_path: Path) -> None:
    task = make("kd=fsp")
    moved = changed(task, tmp_path)
    network, quantizer = ({id(p) for p in group} for group in split_parameters(task.student))
    parameters = dict(task.named_parameters())
    assert quantizer
    assert {n for n, p in parameters.items() if id(p) in network and not after(n)} == moved & parameters.keys()
    assert not any(name.startswith("teacher") for name in moved)


def test_released_fsp_also_trains_the_quantizers(tmp_path: Path) -> None:
    task = make("kd=fsp", "kd.feature_loss.quantizers=true", "recipe.lr=0.1")
    moved = changed(task, tmp_path)
    parameters = dict(task.named_parameters())
    assert {name for name in parameters if not after(name)} == moved & parameters.keys()


def test_after_fsp_the_training_ignores_the_teacher() -> None:
    """The feature loss has no part in the second stage, and the teacher does not run there."""
    task = make("kd=fsp")
    calls: list[object] = []
    assert task.teacher is not None
    task.teacher.register_forward_hook(lambda *args: calls.append(args))
    label = torch.arange(8)
    assert task.eager_losses(small.batch(8), label, label, {}).keys() == {"loss", "ce"}
    assert calls == []
    assert task.features is not None
    assert task.features[0].recorded == {}


def test_loss_of_the_stage_decreases(tmp_path: Path) -> None:
    for kd in ("ft", "fsp"):
        task = make(f"kd={kd}", "kd.feature_loss.pretrain_lr=0.01")
        images = small.batch(8, 5)
        before = float(Pretraining(task, images, epochs=2).loss(images).detach())
        small.pretrain(task, tmp_path / kd)
        assert float(Pretraining(task, images, epochs=2).loss(images).detach()) < before


@pytest.mark.parametrize("size", [1, 10, 100])
def test_the_paraphraser_learns_whatever_the_size_of_the_teachers_map(size: int) -> None:
    """A teacher after few steps has maps with a mean square of about 45, where the absolute error diverged."""
    task = make("kd=ft", "model=resnet20")
    loss = task.objective.feature_loss
    assert loss is not None
    parameters = loss.pretrain_parameters([], [])
    feature = size * small.batch(8)[:, :1].relu().expand(-1, 64, -1, -1)
    for parameter in parameters:
        parameter.requires_grad_()
    assert loss.pretrain_lr is not None
    optimizer = torch.optim.SGD(parameters, lr=loss.pretrain_lr, momentum=0.9)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss.pretrain_loss([], [feature])
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(value.item())
    assert loss.pretrain_lr == 0.01
    assert values[-1] < values[0], "not so for a value that is not a number"


def test_the_relative_error_of_small_maps_is_the_papers_loss() -> None:
    loss = make("kd=ft").objective.feature_loss
    assert isinstance(loss, FactorTransfer)
    small_map, large_map = torch.full((2, 64, 4, 4), 0.5), torch.full((2, 64, 4, 4), 4.0)
    for feature, divisor in ((small_map, 1.0), (large_map, 16.0)):
        error = (loss.restore(loss.paraphrase(feature)) - feature).square().mean()
        assert loss.pretrain_loss([], [feature]).item() == pytest.approx(error.item() / divisor)


def test_the_seconds_of_the_stage_are_kept_in_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(100.0, 10.0)
    monkeypatch.setattr("sqakd.training.pretrain.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    whole = small.pretrain(make("kd=ft"), tmp_path)
    assert whole == 30, "one reading at the start, two for the checkpoints of its epochs, and one at the end"
    assert small.pretrain(make("kd=ft"), tmp_path) == 20, "its last checkpoint, because nothing is left to train"
    assert small.pretrain(make("kd=ft", "kd.feature_loss.pretrain_epochs=0"), tmp_path / "none") == 0


def masks(loss: Tensor) -> int:
    """Return the number of masks that a compiled step keeps for its backward pass."""
    saved: Any = loss.grad_fn
    return sum(tensor.dtype == torch.bool for tensor in saved.saved_tensors)


@pytest.mark.parametrize("kd", ["ft", "fsp", "reconstruction"])
def test_the_compiled_step_of_the_stage_is_one_graph_with_the_eager_gradient(
    kd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps no masks: on a CPU without AVX-512 they made it slower than the eager one."""
    compile, backend = torch.compile, "aot_eager_decomp_partition"
    monkeypatch.setattr(torch, "compile", lambda f, **_: compile(f, backend=backend, fullgraph=True))
    images = small.batch(8, 5)
    task = small.make_task(small.quantized("bits=8"), small.network(seed=1), f"kd={kd}")
    task.build_feature_loss(images, training_images=small.TRAIN, labels=None)
    stage = Pretraining(task, images, epochs=1)
    torch._dynamo.reset()
    loss = stage.compile_losses(size=None)(images)
    assert masks(loss) == 0
    gradients = (torch.autograd.grad(value, stage.trained) for value in (loss, stage.loss(images)))
    for got, expected in zip(*gradients, strict=True):
        assert (got - expected).norm() <= 1e-4 * expected.norm()
    if kd == "reconstruction":
        torch._dynamo.reset()
        assert masks(CompiledStep(stage.loss, size=None)(images)) > 0, "by torch's own choice"


def test_stage_of_zero_epochs_is_omitted(tmp_path: Path) -> None:
    task = make("kd=ft", "kd.feature_loss.pretrain_epochs=0")
    assert changed(task, tmp_path) == set()
    assert list(tmp_path.iterdir()) == []


def test_divergence_stops_the_run_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match="the loss before the training is nan in epoch 0") as error:
        small.pretrain(make("kd=ft", "kd.feature_loss.pretrain_lr=1e30"), tmp_path)
    assert "kd.feature_loss.pretrain_lr=5e+29" in explain(error.value)
    assert list(tmp_path.glob("*.ckpt")) == []


def test_run_killed_in_the_stage_resumes_to_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_weights(tmp_path / "teacher.pt", CifarResNet(blocks=1, num_classes=10), {})
    overrides = [
        "dataset=digits16",
        "kd=ft",
        "model.net.blocks=1",
        "recipe.epochs=1",
        "kd.feature_loss.pretrain_epochs=3",
    ]
    overrides += [f"teacher.checkpoint={tmp_path / 'teacher.pt'}", "callbacks.hessian_scaling=null"]
    name = "digits16-resnet20-ewgs-w2a2-ft"
    killer = {"victim": "before", "epoch": 1, "step": 5, "signal_name": "SIGKILL"}
    kill = ["callbacks.progress._target_=kill_at.KillAt", *(f"+callbacks.progress.{k}={v}" for k, v in killer.items())]
    runs = {which: tmp_path / which / "runs" for which in ("whole", "killed")}
    for folder in runs.values():
        folder.parent.mkdir()
    whole = command.train(*overrides, runs=runs["whole"])
    killed = command.train(*overrides, *kill, runs=runs["killed"])
    resumed = command.train(*overrides, runs=runs["killed"])
    assert (whole.returncode, killed.returncode, resumed.returncode) == (0, -signal.SIGKILL, 0), resumed.stderr
    lines = [f"(before the training): epoch {epoch}/3" for epoch in (1, 2, 3)]
    assert [line in whole.stderr for line in lines] == [True, True, True]
    assert [line in resumed.stderr for line in lines] == [False, True, True]
    there, here = (folder / name / "seed0" for folder in runs.values())
    assert command.same_bits(command.weights(there), command.weights(here))
    assert command.metrics(there) == command.metrics(here)
    assert [file.name for file in (here / "checkpoints").iterdir()] == ["last.ckpt"]

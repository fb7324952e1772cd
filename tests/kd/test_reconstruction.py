"""Reconstruction: the formula, the layers that are compared, and the stage before the training."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import command
import pytest
import small
import torch
from hydra import initialize_config_dir
from torch._dynamo.testing import CompileCounter

from sqakd.app.compose import compose_spec
from sqakd.app.train import train
from sqakd.errors import SqakdError
from sqakd.kd.base import SetupInfo
from sqakd.kd.reconstruction import Reconstruction, relative_error
from sqakd.quantization.parameters import split_parameters
from sqakd.runs.checkpoint import save_weights
from sqakd.runs.folder import RunFolder
from sqakd.runs.record import Record
from sqakd.training.callbacks import compilation
from sqakd.training.code_cache import VARIABLE
from sqakd.training.payback import Payback
from sqakd.training.pretrain import Pretraining
from sqakd.training.task import Task

STAGE = ("kd=reconstruction", "recipe.batch_size=8", "recipe.epochs=12")


def make(*overrides: str) -> Task:
    return small.make_staged_task(*STAGE, *overrides, labelled=False)


def test_the_error_is_a_share_of_the_teacher_s_mean_square() -> None:
    student, teacher = (torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    expected = ((student.double() - teacher.double()) ** 2).mean() / (teacher.double() ** 2).mean()
    assert float(relative_error(student, teacher)) == pytest.approx(float(expected), rel=1e-5)
    assert float(relative_error(1e-3 * student, 1e-3 * teacher)) == pytest.approx(float(expected), rel=1e-5)


def test_a_feature_that_is_0_everywhere_has_no_part_in_the_loss() -> None:
    student = torch.ones(4, 3, 5, 5, requires_grad=True)
    error = relative_error(student, torch.zeros(4, 3, 5, 5))
    error.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert (float(error.detach()), float(student.grad.abs().max())) == (0, 0)


def test_every_feature_layer_but_the_first_is_compared() -> None:
    task = make()
    assert task.features is not None
    assert task.features[0].taps == list(small.config().model.feature_layers[1:])


def test_the_stage_brings_the_features_nearer_with_the_optimizer_of_the_recipe(tmp_path: Path) -> None:
    task = make("kd.feature_loss.pretrain_lr=0.01")
    images = small.batch(8, 5)
    stage = Pretraining(task, images, epochs=3)
    assert stage.recipe.optimizer is task.recipe.optimizer
    before = float(stage.loss(images).detach())
    stage.release()
    ranges = [parameter.clone() for parameter in split_parameters(task.student)[1]]
    small.pretrain(task, tmp_path)
    assert float(stage.loss(images).detach()) < 0.8 * before
    assert all(torch.equal(a, b) for a, b in zip(ranges, split_parameters(task.student)[1], strict=True))


def test_the_training_itself_has_the_logits_alone() -> None:
    task = make()
    assert not task.objective.needs_labels
    assert task.eager_losses(small.batch(8), None, torch.arange(8), {}).keys() == {"loss", "kl"}
    assert task.features is not None
    assert [recorder.recorded for recorder in task.features] == [{}, {}], "no feature outlives its step"


def test_the_training_has_one_compiled_graph() -> None:
    task, counter = make(), CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(task.eager_losses, backend=counter, fullgraph=True)
    for step in range(3):
        compiled(small.batch(8, step), None, torch.arange(8), {})
    assert counter.frame_count == 1


def test_the_stage_has_the_learning_rate_of_the_recipe_or_its_own() -> None:
    for given, expected in (("null", 0.02), ("0.5", 0.5)):
        task = make("recipe.lr=0.02", f"kd.feature_loss.pretrain_lr={given}")
        assert Pretraining(task, small.batch(8), epochs=1).recipe.lr == expected


def test_a_share_is_from_0_to_below_1() -> None:
    for share in (-0.1, 1, "half"):
        with pytest.raises(SqakdError, match="pretrain_share="):
            Reconstruction(pretrain_share=share, pretrain_lr=None)  # type: ignore[arg-type]
    assert not Reconstruction(pretrain_share=0, pretrain_lr=None).has_stage


def test_a_run_counts_the_stage_among_its_epochs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    words = ["kd=reconstruction", "recipe.epochs=5", "kd.feature_loss.pretrain_share=0.6", "dataset=digits16"]
    words += ["dataset.limit=64", "dataset.eval_batch_size=64", "model.net.blocks=1", "teacher.recipe.epochs=1"]
    done = command.train(*words, "callbacks.hessian_scaling=null", "trainer.accelerator=cpu", runs=runs)
    assert done.returncode == 0, done.stderr
    assert "(before the training): epoch 3/3" in done.stderr
    folder = RunFolder.of(runs, "digits16-resnet20-ewgs-w2a2-reconstruction", 0)
    record, rows = folder.read_record(), command.metrics(folder.path)
    assert record is not None
    assert (record.epochs, len(rows), folder.epochs_done) == (5, 2, 2)


def run_shortly(folder: Path, *overrides: str) -> Record:
    """Train in this process: one epoch of features and one of logits."""
    save_weights(folder / "teacher.pt", small.network(), {})
    words = ["dataset=digits16", "dataset.limit=64", "dataset.eval_batch_size=64", "model.net.blocks=1", "logger=none"]
    words += ["kd=reconstruction", "recipe.epochs=2", "trainer.accelerator=cpu", "callbacks.progress=null"]
    words += [f"teacher.checkpoint={folder / 'teacher.pt'}", f"paths.runs={folder}", *overrides]
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        return train(compose_spec(words))


def test_the_recorded_time_includes_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Mock(return_value=10_000.0)
    monkeypatch.setattr("sqakd.app.train.pretrain", stage)
    record = run_shortly(tmp_path, "trainer.compile=false")
    assert stage.call_args.kwargs["epochs"] == 1
    assert record.training_seconds is not None
    assert record.training_seconds > 10_000


def test_a_run_compiles_both_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "elsewhere")  # restored after the test
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(compilation, "WARM_UP", 1)
    monkeypatch.setattr(compilation, "DECIDES_AT", 4)
    monkeypatch.setattr(Payback, "pays", True)
    run_shortly(tmp_path, "recipe.batch_size=8", f"paths.cache={tmp_path}")
    lines = [line for line in capsys.readouterr().out.splitlines() if "compiling" in line]
    assert [line.partition(":")[0] for line in lines] == [
        "compiling the step before the training",
        "compiling the training step",
    ]
    folder = RunFolder.of(tmp_path, "digits16-resnet20-ewgs-w2a2-reconstruction", 0)
    assert sorted(file.name for file in folder.checkpoint.parent.iterdir()) == ["last.ckpt"]


def small_info(student: torch.Tensor, teacher: torch.Tensor) -> SetupInfo:
    return SetupInfo(student=[student], teacher=[teacher], training_images=2, labels=None)


def test_features_of_other_shapes_are_refused() -> None:
    loss = Reconstruction(pretrain_share=0.25, pretrain_lr=0.1)
    loss.names = ["layer2"]
    info = small_info(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 8, 8))
    with pytest.raises(SqakdError, match=r"Reconstruction at layer2: .*\[3, 4, 4\].*\[3, 8, 8\]; expected the same"):
        loss.setup(info)

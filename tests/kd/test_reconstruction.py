"""Reconstruction: the formula, the layers that are compared, and the stage before the training."""

from __future__ import annotations

from pathlib import Path

import pytest
import small
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from sqakd.app.compose import make as make_node
from sqakd.app.parts import training_recipe
from sqakd.errors import SqakdError
from sqakd.kd.base import SetupInfo
from sqakd.kd.objective import Objective
from sqakd.kd.reconstruction import Reconstruction, relative_error
from sqakd.quantization.parameters import split_parameters
from sqakd.training.pretrain import Pretraining
from sqakd.training.task import Task

STAGE = ("kd=reconstruction", "recipe.batch_size=8", "kd.feature_loss.pretrain_epochs=3")


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
    stage = Pretraining(task, images)
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


@pytest.mark.parametrize(("epochs", "stage", "training"), [(0, 1, 0), (2, 1, 1), (8, 2, 6), (50, 12, 38)])
def test_the_stage_takes_a_quarter_of_the_epochs(epochs: int, stage: int, training: int) -> None:
    config = small.config("kd=reconstruction", f"recipe.epochs={epochs}")
    objective: Objective = make_node(config.kd, "kd")
    assert objective.recipe_epochs_before == stage
    assert training_recipe(config, objective).epochs == training


def test_a_stage_that_leaves_no_epoch_is_refused() -> None:
    config = small.config("kd=reconstruction", "recipe.epochs=2", "kd.feature_loss.pretrain_epochs=2")
    with pytest.raises(SqakdError, match=r"recipe\.epochs=2: expected more, because the stage .* takes 2 of them"):
        training_recipe(config, make_node(config.kd, "kd"))


def test_stages_of_other_losses_are_no_part_of_the_recipe() -> None:
    for kd in ("ft", "fsp", "sqakd"):
        assert make_node(small.config(f"kd={kd}").kd, "kd").recipe_epochs_before == 0


def small_info(student: torch.Tensor, teacher: torch.Tensor) -> SetupInfo:
    return SetupInfo(student=[student], teacher=[teacher], network=nn.Identity(), training_images=2, labels=None)


def test_features_of_other_shapes_are_refused() -> None:
    loss = Reconstruction(pretrain_epochs=1, pretrain_lr=0.1)
    loss.names = ["layer2"]
    info = small_info(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 8, 8))
    with pytest.raises(SqakdError, match=r"Reconstruction at layer2: .*\[3, 4, 4\].*\[3, 8, 8\]; expected the same"):
        loss.setup(info)

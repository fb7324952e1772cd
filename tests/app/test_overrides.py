"""The overrides that a float run inherits from its student, and those that are the student's alone."""

from __future__ import annotations

import pytest

from sqakd.app.overrides import float_run_overrides
from sqakd.runs.spec import Spec


def student(*overrides: str, model: str = "resnet20", teacher: str = "resnet20", seed: int = 0) -> Spec:
    return Spec({"teacher": {"seed": seed}}, {"model": model, "model@teacher": teacher}, overrides)


def inherited(*overrides: str, role: str = "model@teacher", teacher: str = "resnet20") -> list[str]:
    """Return the overrides of a float run besides those that every float run has."""
    found, own = (float_run_overrides(student(*some, teacher=teacher), role) for some in (overrides, ()))
    assert found[-len(own) :] == own, "the last override of a key wins"
    return found[: -len(own)]


@pytest.mark.parametrize("role", ["model", "model@teacher"])
@pytest.mark.parametrize(
    "override",
    [
        "dataset=cifar10",
        "dataset.augment.padding=1",
        "dataset.folder=a=b",
        "trainer=ddp",
        "trainer.precision=bf16-mixed",
        "+trainer.limit_train_batches=2",
        "++trainer.benchmark=true",
        "~callbacks.progress",
        "callbacks.progress.lines=3",
        "logger=wandb",
        "paths.runs=/somewhere/else",
        "debug=tiny",
        "experiment=row",
    ],
)
def test_data_and_trainer_overrides_are_shared(override: str, role: str) -> None:
    assert inherited(override, role=role) == [override]


@pytest.mark.parametrize("role", ["model", "model@teacher"])
@pytest.mark.parametrize(
    "override",
    [
        "bits=1",
        "w_bits=1",
        "a_bits=4",
        "seed=3",
        "name=mine",
        "kd=kd",
        "kd.temperature=2",
        "plus=[cutmix,ema]",
        "plus.ema.epochs=2",
        "quantizer=ste",
        "quantizer.first_last=8",
        "quantizer/rounding=ste",
        "recipe=cifar10",
        "recipe.epochs=2",
        "+recipe.optimizer.amsgrad=true",
        "model=resnet20",
        "model.first=[conv1]",
        "model@teacher=resnet20",
        "teacher.first=[conv1]",
        "teacher.checkpoint=float.pt",
        "teacher.seed=1",
        "table=table1",
        "datasets=cifar10",
    ],
)
def test_overrides_of_the_student_alone_are_not_inherited(override: str, role: str) -> None:
    assert inherited(override, role=role) == []


@pytest.mark.parametrize("role", ["model", "model@teacher"])
@pytest.mark.parametrize(
    ("override", "becomes"),
    [
        ("teacher.recipe.epochs=50", "recipe.epochs=50"),
        ("+teacher.recipe.optimizer.nesterov=true", "+recipe.optimizer.nesterov=true"),
        ("~teacher.recipe.optimizer.fused", "~recipe.optimizer.fused"),
        ("recipe@teacher.recipe=cifar100_float", "recipe=cifar100_float"),
    ],
)
def test_the_teachers_recipe_becomes_the_recipe_of_its_float_run(override: str, becomes: str, role: str) -> None:
    assert inherited(override, role=role) == [becomes]


def test_student_and_teacher_of_the_same_model_share_its_overrides() -> None:
    overrides = ["model.net.blocks=1", "model.arch=resnet50", "++model.net.groups=2", "model.name=mine"]
    assert inherited(*overrides, role="model") == inherited(*overrides, role="model@teacher") == overrides


def test_two_different_networks_keep_their_own_overrides() -> None:
    overrides = ("model.net.blocks=1", "teacher.net.blocks=2", "+teacher.arch=resnet50")
    assert inherited(*overrides, role="model", teacher="resnet32") == ["model.net.blocks=1"]
    theirs = inherited(*overrides, role="model@teacher", teacher="resnet32")
    assert theirs == ["model.net.blocks=2", "+model.arch=resnet50"]


def test_the_teachers_own_override_wins_in_any_order() -> None:
    """Hydra takes the last of two overrides of the same key."""
    overrides = ("model.net.blocks=1", "teacher.net.blocks=2")
    assert inherited(*overrides) == inherited(*overrides[::-1]) == ["model.net.blocks=1", "model.net.blocks=2"]


def test_a_float_run_is_one_network_with_labels_alone() -> None:
    spec = student("bits=1", "seed=7", model="resnet20", teacher="resnet32", seed=3)
    expected = {"quantizer=none", "bits=32", "kd=none", "plus=[]", "seed=3"}
    assert set(float_run_overrides(spec, "model")) == {*expected, "model=resnet20"}
    assert set(float_run_overrides(spec, "model@teacher")) == {*expected, "model=resnet32"}


def test_the_order_of_overrides_is_kept() -> None:
    overrides = ["dataset=cifar10", "trainer=ddp", "dataset.download=true", "trainer.devices=2"]
    assert inherited(*overrides) == overrides

"""Which words of a student's sentence its float run inherits, and which are the student's alone."""

from __future__ import annotations

import pytest

from sqakd.runs.spec import Sentence


def sentence(*words: str, model: str = "resnet20", teacher: str = "resnet20", seed: int = 0) -> Sentence:
    return Sentence({"teacher": {"seed": seed}}, {"model": model, "model@teacher": teacher}, words)


def inherited(*words: str, role: str = "model@teacher", teacher: str = "resnet20") -> list[str]:
    """What the float run has besides the words that make it one."""
    found, own = (sentence(*some, teacher=teacher).float_run(role) for some in (words, ()))
    assert found[-len(own) :] == own, "the last words win"
    return found[: -len(own)]


@pytest.mark.parametrize("role", ["model", "model@teacher"])
@pytest.mark.parametrize(
    "word",
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
def test_where_and_on_what_to_train_is_shared(word: str, role: str) -> None:
    assert inherited(word, role=role) == [word]


@pytest.mark.parametrize("role", ["model", "model@teacher"])
@pytest.mark.parametrize(
    "word",
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
def test_what_makes_the_student_stays_with_it(word: str, role: str) -> None:
    assert inherited(word, role=role) == []


@pytest.mark.parametrize("role", ["model", "model@teacher"])
@pytest.mark.parametrize(
    ("word", "becomes"),
    [
        ("teacher.recipe.epochs=50", "recipe.epochs=50"),
        ("+teacher.recipe.optimizer.nesterov=true", "+recipe.optimizer.nesterov=true"),
        ("~teacher.recipe.optimizer.fused", "~recipe.optimizer.fused"),
        ("recipe@teacher.recipe=cifar100_float", "recipe=cifar100_float"),
    ],
)
def test_the_teachers_recipe_is_the_float_runs_own(word: str, becomes: str, role: str) -> None:
    assert inherited(word, role=role) == [becomes]


def test_the_same_network_is_built_for_student_and_teacher() -> None:
    words = ["model.net.blocks=1", "model.arch=resnet50", "++model.net.groups=2", "model.name=mine"]
    assert inherited(*words, role="model") == inherited(*words, role="model@teacher") == words


def test_each_network_of_two_has_its_own_words() -> None:
    words = ("model.net.blocks=1", "teacher.net.blocks=2", "+teacher.arch=resnet50")
    assert inherited(*words, role="model", teacher="resnet32") == ["model.net.blocks=1"]
    theirs = inherited(*words, role="model@teacher", teacher="resnet32")
    assert theirs == ["model.net.blocks=2", "+model.arch=resnet50"]


def test_the_teachers_own_word_wins_in_any_order() -> None:
    """Hydra takes the last of two words for the same value."""
    words = ("model.net.blocks=1", "teacher.net.blocks=2")
    assert inherited(*words) == inherited(*words[::-1]) == ["model.net.blocks=1", "model.net.blocks=2"]


def test_a_float_run_is_one_network_with_labels_alone() -> None:
    words = sentence("bits=1", "seed=7", model="resnet20", teacher="resnet32", seed=3)
    what = {"quantizer=none", "bits=32", "kd=none", "plus=[]", "seed=3"}
    assert set(words.float_run("model")) == {*what, "model=resnet20"}
    assert set(words.float_run("model@teacher")) == {*what, "model=resnet32"}


def test_the_order_of_the_words_is_kept() -> None:
    words = ["dataset=cifar10", "trainer=ddp", "dataset.download=true", "trainer.devices=2"]
    assert inherited(*words) == words

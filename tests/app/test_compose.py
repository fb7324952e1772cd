"""Construction of objects from nodes of a configuration: refused arguments, and mistakes in constructors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import command
import hydra
import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig

from sqakd.advice import explain
from sqakd.app.compose import changes, compose_spec, located, make
from sqakd.app.overrides import float_run_overrides
from sqakd.errors import SqakdError
from sqakd.training.recipe import Recipe

RECIPE: dict[str, Any] = {
    "_target_": "sqakd.training.recipe.Recipe",
    "epochs": 1,
    "batch_size": 8,
    "calibration_batches": 1,
    "accumulate": 1,
    "gradient_clip": None,
    "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True},
    "schedule": {"_target_": "sqakd.training.schedule.CosinePerEpoch"},
    "lr": 0.1,
    "quantizer_lr": 0.0,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
}


def test_a_process_composes_equal_specifications_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[list[str]] = []

    def counted(name: str, overrides: list[str], **options: Any) -> DictConfig:
        composed.append(overrides)
        return hydra.compose(name, overrides=overrides, **options)

    monkeypatch.setattr("sqakd.app.compose.compose", counted)
    seed = "seed=4711"  # of no other test
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        first = compose_spec([seed])
        first.config["recipe"]["lr"] = -1.0
        assert compose_spec([seed]).config["recipe"]["lr"] > 0, "a changed copy"
        assert composed == [[seed]]
        assert compose_spec([seed, "bits=1"]).bits == (1, 1)
    shutil.copytree(command.ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/model/resnet20.yaml").write_text("{name: other, net: null}")
    with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
        assert compose_spec([seed], complete=False).config["model"]["name"] == "other"
    assert len(composed) == 3


SCHEDULE, FEATURE = "recipe.schedule._target_", "kd.feature_loss._target_"
WARMUP, SIMILARITY = "sqakd.training.schedule.WarmupCosine", "sqakd.kd.similarity.SimilarityPreserving"


@pytest.mark.parametrize(
    ("overrides", "classes"),
    [
        (["experiment=swapped"], {SCHEDULE: WARMUP}),
        (["recipe=swapped"], {SCHEDULE: WARMUP}),
        (["kd=at", f"{FEATURE}={SIMILARITY}"], {FEATURE: SIMILARITY}),
        (["kd=at", "model@teacher=vgg8", "quantizer/rounding=ste", "recipe.lr=1", "debug=tiny"], {}),
        (["experiment=best_w1a1"], {}),
        (["recipe=digits", "quantizer=none"], {}),
    ],
)
def test_a_class_in_place_of_that_of_the_options_makes_another_run(
    overrides: list[str], classes: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(command.ROOT / "conf", tmp_path / "conf")
    schedule = f"schedule:\n  _target_: {WARMUP}\n  base: 0.1\n  steps: 2\n"
    (tmp_path / "conf/recipe/swapped.yaml").write_text(f"defaults: [digits, _self_]\n{schedule}")
    inner = schedule.replace("\n", "\n  ").strip()
    (tmp_path / "conf/experiment/swapped.yaml").write_text(f"# @package _global_\nrecipe:\n  {inner}\n")
    with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
        found = compose_spec(overrides)
        assert found.classes == classes
        assert classes.items() <= changes(found).items()
        for key, path in classes.items():
            assert found.identity[f"choices.{key}"] == path
        assert not any(str(value).startswith("sqakd.") for value in compose_spec([]).identity.values())


@pytest.mark.parametrize("sweep", [[], ["seed=0,1", "-m"]])
def test_the_float_run_is_composed_with_the_folders_of_hydras_search_path(sweep: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "möwe\\b"
    (folder / "model").mkdir(parents=True)
    (folder / "model/mine.yaml").write_text("defaults: [resnet20]\nname: mine\n")
    overrides = [f'hydra.searchpath=["file://{folder}"]', "model=mine", "plan=true", *sweep]
    done = command.train(*overrides, runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "digits-mine-none-w32a32-none" in done.stdout
    assert "refused" not in done.stdout


def test_a_name_with_values_is_resolved_and_its_override_is_kept_as_it_was_given() -> None:
    name = "name=${cell}-T${kd.temperature}"
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        spec = compose_spec([name, "kd.temperature=2"])
    assert spec.name == "digits-resnet20-ewgs-w2a2-sqakd-T2"
    assert spec.overrides == (name, "kd.temperature=2")


def test_references_in_other_overrides_are_resolved_because_a_float_run_has_other_bits() -> None:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        spec = compose_spec(["bits=3", "dataset.limit=${bits}00"])
        assert spec.overrides == ("bits=3", "dataset.limit=300")
        assert compose_spec(float_run_overrides(spec, "model")).config["dataset"]["limit"] == 300


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("++name=${cell}-a", "name", "digits-resnet20-ewgs-w2a2-sqakd-a"),
        ("paths.runs=runs/${cell}", "paths.runs", "runs/digits-resnet20-ewgs-w2a2-sqakd"),
    ],
)
def test_other_values_than_the_bare_name_may_refer_to_the_cell(override: str, key: str, value: str) -> None:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        found: Any = compose_spec([override]).config
    for part in key.split("."):
        found = found[part]
    assert found == value


def test_nothing_stays_nothing() -> None:
    assert make(None, "quantizer") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": -1}, "recipe.lr=-1: expected a number >= 0"),
        ({"speed": 1}, "recipe.speed=1: no such key; expected accumulate, "),
        ({"_target_": "sqakd.training.recipe.Recipes"}, "Recipes"),
        (
            {"schedule": {"_target_": "sqakd.training.schedule.WarmupCosine", "base": 0.1, "steps": 1}},
            "recipe.schedule.steps=1: expected a whole number of at least 2",
        ),
    ],
)
def test_a_refused_argument_is_reported_with_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SqakdError) as error:
        make(RECIPE | changes, "recipe")
    assert message in explain(error.value)
    assert "\n" not in str(error.value)


def test_a_mistake_in_our_code_keeps_its_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake that looked like a refused argument would be hard to find."""

    def mistaken(recipe: Recipe) -> None:
        explain(SqakdError("", topic="none"))

    monkeypatch.setattr(Recipe, "__post_init__", mistaken)
    with pytest.raises(KeyError, match="none"):
        make(RECIPE, "recipe")


def test_errors_of_a_block_begin_with_its_key() -> None:
    with pytest.raises(SqakdError, match=r"^dataset\.limit=0: expected"), located("dataset"):
        raise SqakdError("limit=0: expected a whole number of at least 1")

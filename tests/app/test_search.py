"""A search for hyperparameters validates on held-out training images; each trial is a run, so it can be continued."""

from __future__ import annotations

from pathlib import Path

import command
import yaml

from sqakd.app.sweep.best import best_trial

OVERRIDES = ["hparams=kd", "dataset=digits16", "dataset.limit=64", "recipe.epochs=1", "teacher.recipe.epochs=1"]
OVERRIDES += ["quantizer=lsq", "hydra.sweeper.n_trials=2"]


def test_a_search_validates_on_held_out_images_and_can_be_continued(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = command.train(*OVERRIDES, runs=runs)
    assert done.returncode == 0, done.stderr
    configs = {file.parents[1].name: yaml.safe_load(file.read_text()) for file in runs.glob("*/seed0/config.yaml")}
    assert len(configs) == 3, "one float run and two trials"
    assert {config["dataset"]["holdout"] for config in configs.values()} == {0.2}
    trials = [config for name, config in configs.items() if "sqakd-T" in name]
    assert len({(config["kd"]["temperature"], config["kd"]["kl"]) for config in trials}) == 2
    file = runs / ".sweeps" / "optimization_results.yaml"
    best = yaml.safe_load(file.read_text())["best_params"]
    assert best["kd.temperature"] in [config["kd"]["temperature"] for config in trials]
    assert done.stdout.splitlines()[-1] == best_trial(file)
    assert "alembic" not in done.stdout, "messages of a package that Optuna needs"

    again = command.train(*OVERRIDES, runs=runs)
    assert again.returncode == 0, again.stderr
    assert "done in" not in again.stdout
    assert again.stdout.count("  done before: digits16-resnet20-lsq") == 2


def test_the_best_trial_is_shown_as_overrides_with_its_score_and_its_file(tmp_path: Path) -> None:
    file = tmp_path / "optimization_results.yaml"
    file.write_text("name: optuna\nbest_params:\n  kd.temperature: 5.5\n  kd.kl: 0.25\nbest_value: 0.98125\n")
    assert best_trial(file) == f"best trial: kd.temperature=5.5 kd.kl=0.25, score 98.12% ({file})"


def test_a_search_on_the_test_images_is_refused(tmp_path: Path) -> None:
    done = command.train(*OVERRIDES, "dataset.holdout=0.0", runs=tmp_path / "runs")
    assert done.returncode != 0
    assert "use dataset.holdout=0.2" in done.stdout
    assert not list((tmp_path / "runs").glob("digits*"))

"""A search for hyperparameters validates on held-out training images; each trial is a run, so it can be continued."""

from __future__ import annotations

from pathlib import Path

import command
import yaml

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
    best = yaml.safe_load((runs / ".sweeps" / "optimization_results.yaml").read_text())["best_params"]
    assert best["kd.temperature"] in [config["kd"]["temperature"] for config in trials]

    again = command.train(*OVERRIDES, runs=runs)
    assert again.returncode == 0, again.stderr
    assert "done in" not in again.stdout
    assert again.stdout.count("  done before: digits16-resnet20-lsq") == 2


def test_a_search_on_the_test_images_is_refused(tmp_path: Path) -> None:
    done = command.train(*OVERRIDES, "dataset.holdout=0.0", runs=tmp_path / "runs")
    assert done.returncode != 0
    assert "use dataset.holdout=0.2" in done.stdout
    assert not list((tmp_path / "runs").glob("digits*"))

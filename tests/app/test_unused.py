"""Overrides without an effect on a run are reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import command
import pytest
from hydra import initialize_config_dir

from sqakd.app.compose import compose_spec, make
from sqakd.app.unused import unused


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        yield


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (["kd.temperature=2"], []),
        (["kd=kd", "kd.temperature=2", "recipe.label_smoothing=0.1"], []),
        (["kd=none", "kd.temperature=2"], ["kd.temperature=2 has no effect: kd=none has no KL divergence"]),
        (["kd=sqakd", "kd.kl=0", "kd.ce=1", "kd.standardize=true"], ["kd.standardize=true has no effect: kd=sqakd"]),
        (["recipe.label_smoothing=0.1"], ["recipe.label_smoothing=0.1 has no effect: kd=sqakd has no cross-entropy"]),
        (["++kd.label_smoothing=0.1"], ["++kd.label_smoothing=0.1 has no effect: kd=sqakd has no cross-entropy"]),
        (["quantizer=none", "recipe.label_smoothing=0.1"], []),
        (["teacher.seed=1", "teacher.recipe.epochs=2", "recipe@teacher.recipe=cifar10"], []),
        (
            ["teacher.checkpoint=x.pt", "teacher.seed=1", "teacher.recipe.epochs=2", "recipe@teacher.recipe=cifar10"],
            [
                "teacher.seed=1 has no effect: the teacher is read from teacher.checkpoint=x.pt",
                "teacher.recipe.epochs=2 has no effect: the teacher",
                "recipe@teacher.recipe=cifar10 has no effect: the teacher",
            ],
        ),
        (["teacher.checkpoint=x.pt", "model@teacher=resnet32", "teacher.seed=1"], []),  # the student's own float run
        (["teacher.checkpoint=x.pt", "teacher.seed=1", "bits=auto"], []),  # draws images for the choice
    ],
)
def test_an_override_without_effect_is_reported(overrides: list[str], lines: list[str]) -> None:
    spec = compose_spec(overrides)
    found = unused(spec, make(spec.config["kd"], "kd"))
    assert len(found) == len(lines)
    assert all(line.startswith(expected) for line, expected in zip(found, lines, strict=True))


def test_a_training_reports_its_overrides_without_effect(tmp_path: Path) -> None:
    small = [*command.SMALL, "dataset=digits16", "dataset.limit=96", "recipe.epochs=1"]
    done = command.train(*small, "quantizer=none", "kd.temperature=2", runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "warning: kd.temperature=2 has no effect: kd=none has no KL divergence" in done.stdout

"""Folders of a sweep: two different runs in one folder are refused, with a name that keeps them apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import command
import pytest
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from sqakd.app.compose import compose_spec
from sqakd.app.sweep import folders
from sqakd.app.sweep.folders import FolderError, check_folders
from sqakd.runs.folder import RunFolder


@pytest.fixture(autouse=True)
def conf() -> Iterator[None]:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        yield


def jobs(*overrides: str) -> list[list[str]]:
    """Return the overrides of each run of a sweep as Hydra's sweeper makes them: with brackets escaped."""
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(overrides)), None)
    return [list(job) for job in batch]


@pytest.mark.parametrize(
    ("overrides", "changes", "name"),
    [
        (["kd.temperature=1,2"], "kd.temperature: 1 -> 2", "${cell}-temperature${kd.temperature}"),
        (
            ["seed=0", "kd.temperature=1,2", "recipe.epochs=3,4"],
            "kd.temperature: 1 -> 2; recipe.epochs: 3 -> 4",
            "${cell}-temperature${kd.temperature}-epochs${recipe.epochs}",
        ),
        (["recipe=cifar10,digits"], "", "${cell}-recipe${hydra:runtime.choices.recipe}"),
        (["name=mine", "bits=1,2"], "", "mine-bits${bits}"),
        (["++name=mine", "bits=1,2"], "", "mine-bits${bits}"),
        (
            ["++trainer.gradient_clip_algorithm=norm,value"],
            "trainer.gradient_clip_algorithm: norm -> value",
            "${cell}-gradient_clip_algorithm${trainer.gradient_clip_algorithm}",
        ),
        (
            ["name=mine", "quantizer/rounding=ste,ewgs", "kd.kl=1,2"],
            "",
            "mine-rounding${hydra:runtime.choices.quantizer/rounding}-kl${kd.kl}",
        ),
        (
            ["name=${cell}-T${kd.temperature}", "kd.temperature=1,2", "kd.kl=1,2"],
            "kd.kl: 1 -> 2",
            "${cell}-T${kd.temperature}-kl${kd.kl}",
        ),
    ],
)
def test_different_runs_in_one_folder_are_refused_with_a_name_that_works(
    overrides: list[str], changes: str, name: str
) -> None:
    with pytest.raises(FolderError) as refused:
        check_folders(jobs(*overrides))
    message = str(refused.value)
    assert "seed0 would hold different runs of this sweep: " in message
    assert changes in message
    assert message.endswith(f"use 'name={name}'")
    named = jobs(*(o for o in overrides if not o.lstrip("+").startswith("name=")), f"name={name}")
    check_folders(named)
    assert len({RunFolder.of_spec(compose_spec(job)).path for job in named}) == len(named)


@pytest.mark.parametrize(
    "override",
    [
        "recipe@teacher.recipe=digits_float,cifar10_float",  # no reference reaches a choice with a dot in its group
        "teacher.checkpoint=/tmp/a.pt,/tmp/b.pt",  # a name has no slashes
    ],
)
def test_runs_that_no_name_keeps_apart_need_a_command_each(override: str) -> None:
    with pytest.raises(FolderError, match=r"folder of its own; start a command for each, with a name=NAME of its own$"):
        check_folders(jobs(override))


@pytest.mark.parametrize(
    "overrides",
    [
        ["quantizer.start=paper,mse"],
        ["paths.runs=a,b"],
        ["trainer.compile=true,false"],  # the same run
        ["name=a,b", "kd.temperature=2"],
        ["seed=0,1", "name=mine"],
        ["kd.temperature=2"],
        ["kd.unknown=1,2"],
    ],
)
def test_other_sweeps_are_accepted(overrides: list[str]) -> None:
    check_folders(jobs(*overrides))


def test_a_sweep_over_parts_of_the_cell_composes_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "compose_spec", None)
    check_folders(jobs("dataset=digits,digits16", "model=vgg8,resnet20", "bits=1,2", "kd=none,sqakd", "seed=0,1"))


def test_a_sweep_with_a_shared_folder_starts_no_run(tmp_path: Path) -> None:
    for plan in ("true", "false"):
        done = command.train("dataset=digits16", "kd.temperature=1,2", f"plan={plan}", "-m", runs=tmp_path / "runs")
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.rstrip().endswith("use 'name=${cell}-temperature${kd.temperature}'")
        assert list((tmp_path / "runs").iterdir()) == []

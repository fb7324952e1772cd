"""Add-ons: how they are chosen, how they name the run, and which combinations are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import command
import pytest
from hydra import initialize_config_dir

from sqakd.app.compose import changes, compose_spec
from sqakd.app.overrides import float_run_overrides

PLAIN = "digits-resnet20-ewgs-w2a2-sqakd"
NAMES = sorted(file.stem for file in (command.ROOT / "conf" / "plus").glob("*.yaml"))
TOGETHER = [name for name in NAMES if name != "two_step"]  # it sets the bits, and so does progressive


@pytest.fixture
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(command.ROOT / "conf"), version_base="1.3"):
        yield


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize(
    ("overrides", "end"),
    [
        (["plus=cutmix"], "-cutmix"),
        (["plus=[cutmix]"], "-cutmix"),
        (["plus=[trivial,cutmix]"], "-cutmix+trivial"),
        (["plus=[cutmix,trivial]", "plus.cutmix.probability=0.5"], "-cutmix+trivial"),
        (["plus=[]"], ""),
        ([], ""),
    ],
)
def test_a_run_is_named_by_its_add_ons(overrides: list[str], end: str) -> None:
    found = compose_spec(overrides)
    assert found.config["name"] == PLAIN + end
    assert found.choices.get("plus", "") == end.removeprefix("-")
    assert sorted(found.config.get("plus", {})) == [name for name in end[1:].split("+") if name]


@pytest.mark.usefixtures("hydra")
def test_a_run_without_add_ons_has_no_key_for_them() -> None:
    """Folders of runs from before there were add-ons would otherwise be refused."""
    assert "plus" not in compose_spec([]).config


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize("name", NAMES)
def test_each_add_on_has_its_own_key(name: str) -> None:
    assert list(compose_spec([f"plus={name}"]).config["plus"]) == [name]


@pytest.mark.usefixtures("hydra")
def test_the_float_run_has_no_add_ons(tmp_path: Path) -> None:
    """The float run has the experiment of its student, but not the add-ons and the values in it."""
    text = "# @package _global_\ndefaults:\n  - override /plus: [ema, cutmix]\nplus:\n  ema:\n    epochs: 3.0\n"
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "stack.yaml").write_text(text)
    path = f"hydra.searchpath=[file://{tmp_path}]"
    found = compose_spec([path, "experiment=stack", "plus.cutmix.probability=0.5"])
    assert found.config["name"] == f"{PLAIN}-cutmix+ema"
    assert found.config["plus"]["ema"]["epochs"] == 3
    assert found.config["plus"]["cutmix"]["probability"] == 0.5
    assert changes(found) == {"plus.cutmix.probability": 0.5, "plus.ema.epochs": 3.0}
    unquantized = compose_spec([path, *float_run_overrides(found, "model@teacher")])
    assert unquantized.config["name"] == "digits-resnet20-none-w32a32-none"
    assert "plus" not in unquantized.config
    assert "plus" not in unquantized.choices
    less = compose_spec([path, "experiment=stack", "plus=[ema]"])
    assert less.config["name"] == f"{PLAIN}-ema"
    assert list(less.config["plus"]) == ["ema"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["plus=cutmix", "kd=kd"], "plus=cutmix mixes images, but kd=kd reads labels"),
        (["plus=dampen", "quantizer=none"], "plus=dampen needs quantized weights, but quantizer=none has none"),
        (["plus=[two_step,progressive]"], "plus=progressive and plus=two_step both set the bits"),
    ],
)
def test_incompatible_add_ons_are_refused(overrides: list[str], message: str, tmp_path: Path) -> None:
    done = command.train(*command.SMALL, *overrides, runs=tmp_path / "runs")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_all_compatible_add_ons_train_together(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    overrides = [
        *command.SMALL,
        "dataset=digits16",
        "dataset.limit=96",
        "recipe.batch_size=32",
        f"plus=[{','.join(TOGETHER)}]",
    ]
    done = command.train(*overrides, runs=runs)
    assert done.returncode == 0, done.stderr
    folder = runs / f"digits16-resnet20-ewgs-w2a2-sqakd-{'+'.join(TOGETHER)}" / "seed0"
    record = json.loads((folder / "record.json").read_text())
    assert record["choices"]["plus"] == "+".join(TOGETHER)
    assert not record["labels_used"]
    again = command.train(*overrides, runs=runs)
    assert again.returncode == 0, again.stderr
    assert "done before" in again.stdout

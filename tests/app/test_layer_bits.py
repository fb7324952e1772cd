"""Whole commands with bits of single layers: they are in the name, the record, the plan and the picture."""

from __future__ import annotations

import json
from pathlib import Path

import command
import pytest

from sqakd.runs.folder import find_finished
from sqakd.runs.names import bits_name

MIXED = ["quantizer=lsq", "layer_bits={layer3.*:4,conv1:8}", "layer_a_bits={layer1.0.conv2:3}"]
OVERRIDES = ["dataset=digits16", "dataset.limit=96", *command.SMALL, "recipe.epochs=1", "teacher.recipe.epochs=1"]
BITS = {
    "conv1": [8, 8],
    "layer1.0.conv1": [2, 2],
    "layer1.0.conv2": [2, 3],
    "layer2.0.conv1": [2, 2],
    "layer2.0.conv2": [2, 2],
    "layer3.0.conv1": [4, 4],
    "layer3.0.conv2": [4, 4],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "runs"
    done = command.train(*OVERRIDES, *MIXED, runs=folder)
    assert done.returncode == 0, done.stderr
    return folder


def student(runs: Path) -> Path:
    (path,) = [folder.path for folder in find_finished(runs) if "-lsq-" in folder.path.parent.name]
    return path


def test_name_record_and_picture_have_the_bits_of_the_layers(runs: Path) -> None:
    folder = student(runs)
    record = json.loads((folder / "record.json").read_text())
    assert record["layer_bits"] == BITS
    assert record["changes"]["quantizer.layer_bits"] == "layer3.*:4, conv1:8"
    patterns = {"layer_bits": {"layer3.*": 4, "conv1": 8}, "layer_a_bits": {"layer1.0.conv2": 3}}
    name = bits_name({"w_bits": 2, "a_bits": 2, "quantizer": patterns})
    assert folder.parent.name == f"digits16-resnet20-lsq-{name}-sqakd"
    assert (folder / "picture.png").is_file()


def test_the_same_command_finds_the_run_and_the_plan_knows_it(runs: Path) -> None:
    assert "done before" in command.train(*OVERRIDES, *MIXED, runs=runs).stdout
    planned = command.train(*OVERRIDES, *MIXED, "plan=true", runs=runs).stdout
    assert f"done     {student(runs)}" in planned
    wrong = command.train(*OVERRIDES, "layer_bits={layer4.*:2}", "plan=true", runs=runs).stdout
    assert "layer_bits has 'layer4.*', which matches no layer" in wrong

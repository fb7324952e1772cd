"""Whole commands: the sensitivity of a float run, and students whose layers have bits of their own, given or chosen."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import command
import pytest
import small
import yaml

from sqakd.app.result import _average_bits
from sqakd.quantization.layers import layer_bits
from sqakd.runs.names import bits_name
from sqakd.runs.spec import Spec

OVERRIDES = ["dataset=digits16", "dataset.limit=96", "quantizer=lsq", *command.SMALL, "teacher.recipe.epochs=1"]
AUTO = [*OVERRIDES, "bits=auto", "budget.images=16", "budget.widths=[2,4]", "recipe.epochs=1"]
MIXED = [*OVERRIDES, "recipe.epochs=0", "layer_bits={layer3.*:4,conv1:8}", "layer_a_bits={layer1.0.conv2:3}"]
BITS = {
    "conv1": [8, 8],
    "layer1.0.conv1": [2, 2],
    "layer1.0.conv2": [2, 3],
    "layer2.0.conv1": [2, 2],
    "layer2.0.conv2": [2, 2],
    "layer3.0.conv1": [4, 4],
    "layer3.0.conv2": [4, 4],
}
FLOAT = "digits16-resnet20-none-w32a32-none"
FILES = [f"sensitivity-lsq-kl.{ending}" for ending in ("csv", "json", "png", "txt")]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder of runs with a student whose bits were chosen, and what the command printed."""
    runs = tmp_path_factory.mktemp("work") / "runs"
    made = command.train(*AUTO, "budget.size=33kB", runs=runs)
    assert made.returncode == 0, made.stderr
    return runs, made.stdout


@pytest.fixture
def runs(done: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(done[0], tmp_path / "runs"))


def student(runs: Path) -> Path:
    return runs / "digits16-resnet20-lsq-auto+33kB-sqakd" / "seed0"


def test_the_chosen_bits_are_printed_recorded_and_plain_data(done: tuple[Path, str]) -> None:
    runs, printed = done
    record = json.loads((student(runs) / "record.json").read_text())
    quantizer = yaml.safe_load((student(runs) / "config.yaml").read_text())["quantizer"]
    chosen = {name: [quantizer["layer_w_bits"][name], bits] for name, bits in quantizer["layer_a_bits"].items()}
    assert record["layer_bits"] == chosen
    assert len(chosen) == 6
    assert {bits for pair in chosen.values() for bits in pair} == {2, 4}
    averages = re.search(r"on average w(\d\.\d\d) a(\d\.\d\d)", printed)
    assert averages is not None
    assert [record["w_bits"], record["a_bits"]] == [round(float(average)) for average in averages.groups()]
    assert record["packed_bytes"] <= 33_000
    assert f"{record['packed_bytes'] / 1000:.1f} kB packed, {record['bit_operations'] / 1e6:.1f}M bit-op" in printed
    for name, (w_bits, a_bits) in chosen.items():
        assert f"{name}  {'█' * w_bits} {w_bits}" in printed
        assert f"{'█' * a_bits} {a_bits}" in printed
    assert (student(runs) / "bits.png").is_file()
    assert record["changes"]["budget.size"] == "33kB"
    assert record["chosen_bits"] == "auto+33kB"
    assert not any("layer_" in key for key in record["changes"]), "the budget is the change"
    assert all((runs / FLOAT / "seed0" / name).is_file() for name in FILES)


def test_a_repeated_run_does_not_choose_again(runs: Path) -> None:
    for file in (runs / FLOAT / "seed0").glob("sensitivity*"):
        file.unlink()
    again = command.train(*AUTO, "budget.size=33kB", runs=runs)
    assert "done before" in again.stdout, again.stderr
    assert "done     " in command.train(*AUTO, "budget.size=33kB", "plan=true", runs=runs).stdout
    (student(runs) / "record.json").unlink()  # as if the training had been interrupted
    resumed = command.train(*AUTO, "budget.size=33kB", runs=runs)
    assert "bits chosen" not in resumed.stdout
    assert not list((runs / FLOAT / "seed0").glob("sensitivity*"))
    other = command.train(*AUTO, "budget.size=33kB", "budget.images=8", runs=runs)
    assert "budget.images: 16 -> 8" in other.stderr


def test_an_impossible_budget_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    refused = command.train(*AUTO, "budget.size=9kB", runs=tmp_path / "runs")
    assert refused.returncode == 1
    assert "budget.size=9kB: expected at least 25240 bytes, the smallest possible, with weights of 2" in refused.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["budget.size=40kB"], "budget.size has no effect without bits=auto"),
        (["bits=auto", "budget.size=40kB", "layer_bits={conv1:8}"], "remove layer_bits="),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(overrides: list[str], message: str, tmp_path: Path) -> None:
    assert message in command.train(*OVERRIDES, *overrides, runs=tmp_path / "runs").stderr


def test_the_command_prints_the_sensitivity_and_reads_it_from_its_files(runs: Path) -> None:
    folder = runs / FLOAT / "seed0"
    options = [f"run={folder}", "method=lsq", "images=16", "widths=[2,4]"]
    before = {name: (folder / name).read_bytes() for name in FILES}
    found = command.script("-m", "sqakd.sensitivity", *options, folder=runs)
    assert found.returncode == 0, found.stderr
    assert "measured" not in found.stdout, "the student has measured it"
    assert [line.split()[0] for line in found.stdout.splitlines()[2:-1]] == [
        "layer",
        "conv1",
        *(f"layer{stage}.0.conv{i}" for stage in (1, 2, 3) for i in (1, 2)),
        "linear",
    ]
    assert {name: (folder / name).read_bytes() for name in FILES} == before
    other = command.script("-m", "sqakd.sensitivity", *options, "widths=[3]", folder=runs)
    assert "measured on 16 training images" in other.stdout
    quantized = command.script("-m", "sqakd.sensitivity", f"run={student(runs)}", folder=runs)
    assert "is a quantized run; expected a float run" in quantized.stderr


def test_bits_that_are_given_are_in_the_name_the_record_the_picture_and_the_plan(runs: Path) -> None:
    made = command.train(*MIXED, runs=runs)
    assert made.returncode == 0, made.stderr
    patterns = {"layer_bits": {"layer3.*": 4, "conv1": 8}, "layer_a_bits": {"layer1.0.conv2": 3}}
    name = bits_name({"w_bits": 2, "a_bits": 2, "quantizer": patterns})
    folder = runs / f"digits16-resnet20-lsq-{name}-sqakd" / "seed0"
    record = json.loads((folder / "record.json").read_text())
    assert record["layer_bits"] == BITS
    assert record["changes"]["quantizer.layer_bits"] == "layer3.*:4, conv1:8"
    assert (folder / "picture.png").is_file()
    assert f"done     {folder}" in command.train(*MIXED, "plan=true", runs=runs).stdout
    wrong = command.train(*OVERRIDES, "layer_bits={layer4.*:2}", "plan=true", runs=runs).stdout
    assert "layer_bits has 'layer4.*', which matches no layer" in wrong


def test_the_average_bits_are_those_of_the_chosen_layers() -> None:
    """The outer layers have 8 bits, and no budget counts them."""
    student = small.quantized("quantizer=lsq", "bits=2", "quantizer.first_last=8")
    inner = {name: 2 for name, bits in layer_bits(student).items() if bits == (2, 2)}
    assert len(inner) < len(layer_bits(student))
    spec = cast(Spec, SimpleNamespace(config={"quantizer": {"layer_w_bits": inner}}))
    assert _average_bits(spec, student, small.SHAPE) == (2, 2)

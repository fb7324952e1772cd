"""Whole commands: the sensitivity of a float run, and students whose bits are chosen under a budget."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import command
import pytest
import yaml

OVERRIDES = ["dataset=digits16", "dataset.limit=96", "quantizer=lsq", *command.SMALL]
AUTO = [*OVERRIDES, "bits=auto", "budget.images=16", "budget.widths=[2,4]", "recipe.epochs=1"]
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
    assert record["packed_bytes"] <= 33_000
    assert f"{record['packed_bytes'] / 1000:.1f} kB packed, {record['bit_operations'] / 1e6:.1f}M bit-op" in printed
    for name, (w_bits, a_bits) in chosen.items():
        assert f"{name}  {'█' * w_bits} {w_bits}" in printed
        assert f"{'█' * a_bits} {a_bits}" in printed
    assert (student(runs) / "bits.png").is_file()
    assert record["changes"]["budget.size"] == "33kB"
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
    other = command.train(*AUTO, "budget.size=33kB", "budget.criterion=curvature", runs=runs)
    assert "budget.criterion: kl -> curvature" in other.stderr


def test_an_impossible_budget_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    refused = command.train(*AUTO, "budget.size=9kB", runs=tmp_path / "runs")
    assert refused.returncode == 1
    assert "budget.size=9kB: expected at least 25240 bytes, the smallest possible, with weights of 2" in refused.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["bits=auto"], "bits=auto needs a budget; use for instance budget.size=40kB"),
        (["budget.size=40kB"], "budget.size has no effect without bits=auto"),
        (["bits=auto", "budget.size=40kB", "layer_bits={conv1:8}"], "remove layer_bits="),
        (["bits=auto", "budget.size=lots"], "budget.size='lots': expected an amount such as 40kB"),
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

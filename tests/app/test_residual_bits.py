"""Whole commands with `residual_bits`: the name, the record, the checkpoint and the export of such a run."""

from __future__ import annotations

import json
from pathlib import Path

import command
import pytest

OVERRIDES = ["dataset=digits16", "dataset.limit=96", "quantizer=lsq", *command.SMALL, "teacher.recipe.epochs=1"]


def test_a_run_with_rounded_sums_trains_and_is_exported(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    made = command.train(*OVERRIDES, "residual_bits=8", "recipe.epochs=1", runs=runs)
    assert made.returncode == 0, made.stdout + made.stderr
    folder = runs / "digits16-resnet20-lsq-w2a2+r8-sqakd" / "seed0"
    record = json.loads((folder / "record.json").read_text())
    assert record["changes"]["quantizer.residual_bits"] == 8
    assert (record["w_bits"], record["a_bits"]) == (2, 2)
    weights = command.weights(folder)
    steps = {name: tensor for name, tensor in weights.items() if ".sum." in name and name.endswith(".step")}
    assert len(steps) == 3  # one step, stored under the name of each sum
    assert len({float(step) for step in steps.values()}) == 1
    card = (folder / "README.md").read_text()
    assert "2-bit weights, 2-bit activations and 8-bit residual sums" in card
    teacher = command.weights(runs / "digits16-resnet20-none-w32a32-none" / "seed0")
    assert not any(".sum." in name for name in teacher)
    assert "done" in command.train(*OVERRIDES, "residual_bits=8", "recipe.epochs=1", runs=runs).stdout
    options = ["profile=requantized", "benchmark.rounds=0", "images=96"]
    exported = command.script("export.py", f"run={folder}", *options, folder=tmp_path)
    assert exported.returncode == 0, exported.stdout + exported.stderr
    verdicts = json.loads((folder / "export-requantized" / "record.json").read_text())["verify"]
    assert all(verdict["agreement"] >= 0.995 for verdict in verdicts)
    *layers, first, second, third = json.loads((folder / "export-requantized" / "layers.json").read_text())
    assert {layer["output"] for layer in layers} == {"integers"}
    assert [total["name"] for total in (first, second, third)] == [name.partition(".quantizer")[0] for name in steps]
    assert {total["kind"] for total in (first, second, third)} == {"sum"}
    assert (first["bits"], first["highest"]) == (8, 255)
    assert first["step"] == float(steps["layer1.0.sum.quantizer.step"]) == second["step"] == third["step"]
    assert (first["branch"]["shift"], first["branch"]["levels"]) == (128, 255)
    assert (first["shortcut"]["shift"], first["shortcut"]["levels"]) == (0, 255)
    assert "layer1.0.sum, layer2.0.sum, layer3.0.sum" in (folder / "export-requantized" / "report.md").read_text()
    pytest.importorskip("qonnx")
    exported = command.script("export.py", f"run={folder}", "format=qonnx", "images=96", folder=tmp_path)
    assert exported.returncode == 0, exported.stdout + exported.stderr
    entries = json.loads((folder / "export-qonnx" / "layers.json").read_text())
    assert entries[-3:] == [first, second, third]  # the same integers in either form
    assert len(entries) == len(layers) + 3
    assert {layer["output"] for layer in entries[:-3]} == {"real"}
    written = json.loads((folder / "export-qonnx" / "record.json").read_text())
    assert [verdict["runtime"].split()[0] for verdict in written["verify"]] == ["qonnx"]
    assert all(verdict["agreement"] == 1 for verdict in written["verify"])
    assert "layer1.0.sum, layer2.0.sum, layer3.0.sum" in (folder / "export-qonnx" / "report.md").read_text()

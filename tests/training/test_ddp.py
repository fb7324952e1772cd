"""Distributed training: two processes end in the weights of one process, with the same global batches."""

from __future__ import annotations

import json
from pathlib import Path

import command
import pytest
import torch

PLAIN = ["model.net._target_=plain_network.plain_network", "model.name=plain", "model.feature_layers=[]"]
# 256 images are four batches of 64: each process has half of each.
OVERRIDES = [*command.SMALL, *PLAIN, "dataset.limit=256", "trainer.accelerator=cpu", "recipe.epochs=3"]


def train(runs: Path, *overrides: str) -> None:
    done = command.train(*OVERRIDES, *overrides, runs=runs)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("quantizer", ["ewgs", pytest.param("pact", marks=pytest.mark.slow)])
def test_two_processes_end_in_the_weights_of_one(tmp_path: Path, quantizer: str) -> None:
    """The tolerance is 1e-3 of each tensor's largest value: sums have another order, and rounding amplifies that."""
    runs = tmp_path / "runs"
    train(runs, f"quantizer={quantizer}", "bits=4", "name=one")
    train(runs, f"quantizer={quantizer}", "bits=4", "name=two", "trainer.devices=2", "trainer.strategy=ddp")
    records = [json.loads((runs / name / "seed0" / "record.json").read_text()) for name in ("one", "two")]
    assert [record["devices"] for record in records] == [1, 2]
    assert records[1]["changes"] == records[0]["changes"] | {"trainer.devices": 2}, (
        "a run on two devices is another cell"
    )
    one, two = (command.weights(runs / name / "seed0") for name in ("one", "two"))
    start = command.weights(runs / "digits-plain-none-w32a32-none" / "seed0")
    for name, tensor in one.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-3 * float(tensor.abs().max()))
    moved = (one["2.weight"] - start["2.weight"]).abs().max() / one["2.weight"].abs().max()
    assert float(moved) > 1e-2  # the training changes weights by much more than the tolerance
    rows = [command.metrics(runs / name / "seed0") for name in ("one", "two")]
    for first, second in zip(*rows, strict=True):
        # The divergence is small, about 2e-4, so a single code that is rounded the other way is a good part of it.
        assert float(second["train/loss"]) == pytest.approx(float(first["train/loss"]), rel=1e-2)


def test_sweep_of_runs_with_two_devices_is_refused(tmp_path: Path) -> None:
    done = command.train(
        *OVERRIDES, "trainer.devices=2", "trainer.strategy=ddp", "seed=0,1", "-m", runs=tmp_path / "runs"
    )
    assert done.returncode == 1
    assert "use trainer.devices=1 hydra/launcher=joblib" in done.stdout
    assert not list((tmp_path / "runs").glob("digits*"))

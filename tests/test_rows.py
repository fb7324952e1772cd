"""Every cell of the tables trains, is skipped when done, and reports: scaled down, on real digits.

The rows' own data cannot be here, so each row's network, quantizers, losses and recipe meet 96 digits for one epoch.
"""

from __future__ import annotations

import json
from pathlib import Path

import command
import pytest
import yaml

from sqakd.report import read_records

TABLES = command.ROOT / "conf" / "table"
RECIPE = {"cifar10": "cifar10", "cifar100": "cifar100", "tiny": "tiny_imagenet"}


def rows(table: str) -> list[str]:
    params = yaml.safe_load((TABLES / f"{table}.yaml").read_text())["hydra"]["sweeper"]["params"]
    return str(params["experiment"]).split(",")


def words(row: str) -> list[str]:
    recipe = RECIPE[row.split("_")[0]]
    return [
        f"experiment={row}",
        "dataset=digits",
        "dataset.limit=96",
        f"recipe={recipe}",
        f"recipe@teacher.recipe={recipe}_float",
        *(f"{where}{key}" for where in ("", "teacher.") for key in ("recipe.epochs=1", "recipe.batch_size=32")),
    ]


def train_row(table: str, row: str, runs: Path, *narrower: str) -> int:
    """Train a row's cells, then again; returns their number, float runs included."""
    done = command.train(f"table={table}", *words(row), *narrower, runs=runs, timeout=1500)
    assert done.returncode == 0, done.stderr
    again = command.train(f"table={table}", *words(row), *narrower, runs=runs, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "finished:" not in again.stdout
    records = read_records(runs)
    for file in runs.glob("*/seed0/record.json"):
        record = json.loads(file.read_text())
        assert 0 <= record["scores"]["top1"]["last"] <= 1
        assert record["epochs"] == 1
    return len(records)


@pytest.mark.parametrize(
    ("table", "row", "narrower", "number"),
    [
        ("table4", "cifar10_vgg8", ["bits=1", "kd=sqakd"], 2),
        ("table5", "tiny_resnet18", ["bits=3", "quantizer=lsq,pact,dorefa", "kd=sqakd"], 4),
        ("table6_released", "tiny_shufflenet_v2_dorefa_w8_released", ["kd=sqakd_released,none_matched"], 3),
    ],
)
def test_a_slice(table: str, row: str, narrower: list[str], number: int, tmp_path: Path) -> None:
    assert train_row(table, row, tmp_path / "runs", *narrower) == number


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "row"), [(file.stem, row) for file in sorted(TABLES.glob("table*.yaml")) for row in rows(file.stem)]
)
def test_every_cell(table: str, row: str, tmp_path: Path) -> None:
    assert train_row(table, row, tmp_path / "runs") >= 3

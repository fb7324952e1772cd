"""Every cell of the tables trains, is skipped when done, and is reported: scaled down, on real digits.

The images of the rows cannot be here, so each row's network, quantizers, losses, weights and recipe are trained on 96
digits for one epoch. Table 7 is not among them: the first stage of FSP diverges against a teacher of three steps, whose
batch-norm statistics are far off; its losses have tests of their own.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import command
import pytest
from table_sizes import TABLES, cells

from sqakd.report.write import write_report

PAPER = [table for table in TABLES if re.match("table[456]", table)]
ROWS = [(table, row) for table in PAPER for row in sorted({(c["dataset"], c["model"]) for c in cells(table)})]


def small(dataset: str) -> list[str]:
    """Return overrides that replace the images and shorten the training of a row."""
    return [
        "debug=tiny",
        "dataset._target_=small_digits.SmallDigits",
        "dataset.limit=96",
        *(["dataset.image_size=32"] if dataset == "tiny_imagenet" else []),
        *(f"{where}{key}" for where in ("", "teacher.") for key in ("recipe.epochs=1", "recipe.batch_size=32")),
    ]


def train_row(table: str, narrower: list[str], runs: Path) -> int:
    """Train some cells of a table, interrupt one of them, continue, request all again, and report.

    Returns:
        The number of runs in the report, float runs included.
    """
    last = cells(table, *narrower)[-1]
    sweep = [f"table={table}", *narrower, *small(last["dataset"])]
    stopped = command.train(*sweep, *command.kill_at(f"-{last['kd']}", 0, 1, "SIGTERM"), runs=runs, timeout=1500)
    assert "the same command continues" in stopped.stdout
    begun = [file.parent.parent for file in runs.glob("*/seed0/checkpoints/last.ckpt")]
    (half,) = [run for run in begun if not (run / "record.json").exists()]
    done = command.train(*sweep, runs=runs, timeout=1500)
    assert done.returncode == 0, done.stderr
    assert re.search(f" done in .*: {half.parent.name}-seed0", done.stdout)
    again = command.train(*sweep, runs=runs, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "trained" not in again.stdout
    for file in runs.glob("*/seed0/record.json"):
        record = json.loads(file.read_text())
        assert 0 <= record["scores"]["top1"]["last"] <= 1
        assert record["epochs"] == 1
    results = runs.parent / "results"
    results.mkdir()
    shutil.copy(command.ROOT / "results" / "paper.csv", results)
    write_report(runs, results)
    with (results / "ours.csv").open(newline="") as lines:
        return len(list(csv.DictReader(lines)))


@pytest.mark.parametrize(
    ("table", "narrower", "number"),
    [
        pytest.param("table4", "model=vgg8 bits=1 kd=sqakd", 2, marks=pytest.mark.slow),
        pytest.param("table5", "model=resnet18 bits=3 quantizer=lsq,pact,dorefa kd=sqakd", 4, marks=pytest.mark.slow),
        pytest.param(
            "table6_released",
            "model=shufflenet_v2_x0_5 bits=8 kd=sqakd_released,none_matched",
            3,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_part_of_a_table_trains_resumes_and_is_reported(
    table: str, narrower: str, number: int, tmp_path: Path
) -> None:
    assert train_row(table, narrower.split(), tmp_path / "runs") == number


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "row"), ROWS, ids=lambda value: "-".join(value) if isinstance(value, tuple) else value
)
def test_every_cell_trains(table: str, row: tuple[str, str], tmp_path: Path) -> None:
    assert train_row(table, [f"dataset={row[0]}", f"model={row[1]}"], tmp_path / "runs") >= 2

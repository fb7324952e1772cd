"""The published number of a cell: found for this cell, and not for similar ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import command
import pytest

from sqakd.runs import paper
from sqakd.runs.paper import published
from sqakd.runs.record import Published
from sqakd.runs.spec import Spec

HEADER = "table,dataset,model,quantizer,bits,kd,top1,top5,source,reference\n"
ROWS = """\
table7,cifar10,resnet20,ewgs,2,sqakd,,,unknown,
table4,cifar10,resnet20,ewgs,2,sqakd,91.65,,re-run,"a paper, its table"
squat,cifar10,resnet20,ewgs,2,sqakd,90.00,,second-hand,
table4,cifar10,resnet20,ewgs,1,sqakd,86.52,,re-run,
table4,cifar10,resnet20,none,32,none,92.63,,re-run,
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "paper.csv").write_text(HEADER + ROWS)
    return tmp_path / "paper.csv"


def spec(*overrides: str, w_bits: int = 2, a_bits: int = 2, model: str = "resnet20", **choices: str) -> Spec:
    config: dict[str, Any] = {"w_bits": w_bits, "a_bits": a_bits, "model": {"name": model}}
    own = {"dataset": "cifar10", "quantizer": "ewgs", "kd": "sqakd", "model": "resnet20"}
    return Spec(config, own | choices, overrides)


def test_the_cell_is_found_in_the_first_table_that_has_a_number(file: Path) -> None:
    found = Published(top1=0.9165, source="re-run", table="table4", compared_with="its own")
    assert published(spec(), {}, file=file) == found
    other = published(spec(w_bits=1, a_bits=1), {}, file=file)
    assert other is not None
    assert other.top1 == 0.8652


def test_a_float_run_has_a_published_number(file: Path) -> None:
    found = published(spec(w_bits=32, a_bits=32, quantizer="none", kd="none"), {}, file=file)
    assert found == Published(top1=0.9263, source="re-run", table="table4", compared_with="its own")


@pytest.mark.parametrize("cell", [spec(quantizer="ewgs_released"), spec(kd="sqakd_released")])
def test_the_released_reading_is_compared_with_the_same_cell(cell: Spec, file: Path) -> None:
    found = published(cell, {}, file=file)
    assert found == Published(top1=0.9165, source="re-run", table="table4", compared_with="without _released")


@pytest.mark.parametrize(
    "other",
    [
        spec(dataset="cifar100"),
        spec(model="resnet32"),
        spec(quantizer="ste"),
        spec(kd="none"),
        spec(plus="ema"),
        spec(w_bits=4, a_bits=4),
        spec(w_bits=1, a_bits=2),
        spec(w_bits=2, a_bits=1),
        spec("quantizer/rounding=ste"),
    ],
)
def test_a_cell_that_differs_has_no_published_number(other: Spec, file: Path) -> None:
    assert published(other, {}, file=file) is None


def test_a_run_with_changes_has_no_published_number(file: Path) -> None:
    assert published(spec(), {"recipe.epochs": 3}, file=file) is None


def test_there_is_no_published_number_without_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert published(spec(), {}, file=tmp_path / "paper.csv") is None
    monkeypatch.setattr(paper, "FILE", tmp_path / "paper.csv")
    assert published(spec(), {}) is None


def test_the_file_of_the_project_is_read() -> None:
    assert command.ROOT / "results" / "paper.csv" == paper.FILE
    found = published(spec(), {})
    assert found is not None
    assert found.table == "table4"


@pytest.mark.parametrize("text", ["not,a,table\n1,2,3\n", HEADER + "table4,cifar10,resnet20,ewgs,2,sqakd,high,,,\n"])
def test_a_damaged_file_is_named(text: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(
        ValueError, match=r"paper\.csv is not a table .*: expected text in UTF-8 with the columns table, "
    ):
        published(spec(), {}, file=file)

"""The published number of a cell: found for the cell itself, and for nothing that only resembles it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import command
import pytest

from sqakd.runs import paper
from sqakd.runs.paper import published
from sqakd.runs.record import Published
from sqakd.runs.spec import Spec

HEADER = "table,dataset,model,quantizer,bits,kd,top1,top5,kind,source\n"
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


def sentence(*words: str, w_bits: int = 2, a_bits: int = 2, model: str = "resnet20", **choices: str) -> Spec:
    config: dict[str, Any] = {"w_bits": w_bits, "a_bits": a_bits, "model": {"name": model}}
    own = {"dataset": "cifar10", "quantizer": "ewgs", "kd": "sqakd", "model": "resnet20"}
    return Spec(config, own | choices, words)


def test_the_cell_is_found_in_the_first_table_that_has_a_number(file: Path) -> None:
    found = Published(top1=0.9165, source="re-run", table="table4", cell="its own")
    assert published(sentence(), {}, file=file) == found
    other = published(sentence(w_bits=1, a_bits=1), {}, file=file)
    assert other is not None
    assert other.top1 == 0.8652


def test_the_float_run_has_its_own(file: Path) -> None:
    found = published(sentence(w_bits=32, a_bits=32, quantizer="none", kd="none"), {}, file=file)
    assert found == Published(top1=0.9263, source="re-run", table="table4", cell="its own")


@pytest.mark.parametrize("cell", [sentence(quantizer="ewgs_released"), sentence(kd="sqakd_released")])
def test_the_released_reading_stands_beside_the_same_cell(cell: Spec, file: Path) -> None:
    found = published(cell, {}, file=file)
    assert found == Published(top1=0.9165, source="re-run", table="table4", cell="without _released")


@pytest.mark.parametrize(
    "other",
    [
        sentence(dataset="cifar100"),
        sentence(model="resnet32"),
        sentence(quantizer="ste"),
        sentence(kd="none"),
        sentence(plus="ema"),
        sentence(w_bits=4, a_bits=4),
        sentence(w_bits=1, a_bits=2),
        sentence(w_bits=2, a_bits=1),
        sentence("quantizer/rounding=ste"),
    ],
)
def test_what_differs_is_another_cell(other: Spec, file: Path) -> None:
    assert published(other, {}, file=file) is None


def test_a_run_with_changes_is_no_cell(file: Path) -> None:
    assert published(sentence(), {"recipe.epochs": 3}, file=file) is None


def test_without_the_file_there_is_nothing_to_compare_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert published(sentence(), {}, file=tmp_path / "paper.csv") is None
    monkeypatch.setattr(paper, "FILE", tmp_path / "paper.csv")
    assert published(sentence(), {}) is None


def test_the_projects_own_file_is_read() -> None:
    assert command.ROOT / "results" / "paper.csv" == paper.FILE
    found = published(sentence(), {})
    assert found is not None
    assert found.table == "table4"


@pytest.mark.parametrize("text", ["not,a,table\n1,2,3\n", HEADER + "table4,cifar10,resnet20,ewgs,2,sqakd,high,,,\n"])
def test_a_damaged_file_is_named(text: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match=r"paper\.csv is not a table .*: expected the columns table, "):
        published(sentence(), {}, file=file)

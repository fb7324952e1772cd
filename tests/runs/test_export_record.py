"""The record of an export: read back as written; the record of something else is skipped, a damaged one is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import Made, make_export, make_run

from sqakd.errors import SqakdError
from sqakd.runs.export_record import read_export, read_exports, write_export

MADE = Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = make_run(tmp_path, MADE)
    make_export(folder, MADE)
    return folder / "export-exact" / "record.json"


def test_a_record_is_read_back_as_it_was_written(file: Path, tmp_path: Path) -> None:
    record = read_export(file)
    assert record is not None
    write_export(tmp_path / "copy.json", record)
    assert read_export(tmp_path / "copy.json") == record
    assert list(read_exports(tmp_path)) == [record]


def test_the_parts_of_a_record_are_typed(file: Path) -> None:
    record = read_export(file)
    assert record is not None
    assert record.benchmark is not None
    assert (record.verify[0].top1, record.sizes.file, record.benchmark.rows[0].profile) == (0.95, 102_300, "float")
    assert record.benchmark.rows[0].runtime == "ONNX Runtime"


def test_a_record_without_a_benchmark_has_no_such_key(file: Path) -> None:
    content = json.loads(file.read_text())
    del content["benchmark"]
    file.write_text(json.dumps(content))
    record = read_export(file)
    assert record is not None
    assert record.benchmark is None
    assert "benchmark" not in record.to_dict()


@pytest.mark.parametrize("content", ["{}", "[]", '{"name": "a", "seed": 0}'])
def test_the_record_of_something_else_is_skipped(content: str, file: Path, tmp_path: Path) -> None:
    file.write_text(content)
    assert read_export(file) is None
    assert list(read_exports(tmp_path)) == []


@pytest.mark.parametrize("part", ["sizes", "verify", "benchmark"])
def test_a_damaged_record_is_named(part: str, file: Path, tmp_path: Path) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {part: 3}))
    with pytest.raises(SqakdError) as refused:
        list(read_exports(tmp_path))
    assert str(refused.value).startswith(f"{file} is not a record of an export ({part}=3: expected ")

"""record.json: what is written is read back; an older file is read, a newer or a damaged one is refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import command
import passing
import pytest
from made_runs import Made, made_record

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.files import ReadError
from sqakd.runs.export_record import read_export
from sqakd.runs.folder import RunFolder, find_finished
from sqakd.runs.record import VERSION, Published, Record, Score, read_record, write_record

OLD_RUNS = command.ROOT / "tests" / "old_runs" / "version1"
STUDENT = made_record(Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0))
FLOAT = made_record(Made("digits16", "resnet20", "none", 32, "none", 0))
PAPER = Published(top1=0.625, source="re-run", table="table4", compared_with="its own")
# Keys that records of earlier commits lack.
LATER = ("paper", "device", "devices", "threads", "finished", "versions", "training_seconds", "weights_sha256")


def score(value: float, best: float = 0.75) -> Score:
    return Score(last=value, best=best, mean_of_last_5=0.5)


@pytest.mark.parametrize(
    "record",
    [
        STUDENT,
        FLOAT,
        replace(STUDENT, paper=PAPER, difference_from_paper=0.1),
    ],
)
def test_a_record_is_read_back_as_it_was_written(record: Record, tmp_path: Path) -> None:
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json") == record
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_the_keys_of_the_file_stay_as_they_are() -> None:
    plain = replace(STUDENT, paper=PAPER, difference_from_paper=0.5).to_dict()
    assert " ".join(plain) == (
        "version name seed choices changes model w_bits a_bits epochs scores labels_used float_run paper parameters"
        " packed_bytes bit_operations images_per_second training_seconds commit versions device devices threads"
        " finished command drop_from_float difference_from_paper weights_sha256"
    )
    assert plain["version"] == VERSION == 2
    assert plain["scores"]["top1"].keys() == {"last", "best", "mean_of_last_5"}
    assert plain["float_run"].keys() == {"name", "seed", "scores"}
    assert plain["paper"] == {"top1": 0.625, "kind": "re-run", "table": "table4", "cell": "its own"}
    assert json.loads(json.dumps(plain)) == plain


def test_records_of_runs_made_before_version_2_are_read() -> None:
    files = [folder.record for folder in find_finished(OLD_RUNS)]
    assert [file.parents[1].name.split("-")[2] for file in files] == ["ewgs", "none"]
    for file in files:
        content = json.loads(file.read_text())
        assert "version" not in content
        assert read_record(file).to_dict() == {"version": VERSION} | content


def test_keys_that_early_records_lack_are_none_or_empty() -> None:
    content = {key: value for key, value in STUDENT.to_dict().items() if key not in (*LATER, "version")}
    record = Record.from_dict(content)
    assert {getattr(record, key) for key in LATER if key != "versions"} == {None}
    assert record.versions == {}
    assert record.summary() == STUDENT.summary()


def test_a_newer_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(STUDENT.to_dict() | {"version": 3}))
    with pytest.raises(SqakdError) as refused:
        read_record(file)
    assert str(refused.value) == f"{file}: record version 3, but this code reads versions 1 to 2"
    assert explain(refused.value).endswith("; update sqakd to the version that wrote it")


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without("name"), "name is missing: expected a string"),
        (without("choices", "kd"), "choices.kd is missing: expected a string"),
        (without("scores", "top1", "best"), "scores.top1.best is missing: expected a number from 0 to 1"),
        (lambda content: content.update(seed="0"), "seed='0': expected a whole number"),
        (lambda content: content.update(epochs=True), "epochs=True: expected a whole number"),
        (lambda content: content.update(changes=[]), "changes=[]: expected an object"),
        (lambda content: content.update(scores={"kl": 1}), "scores.kl=1: expected an object"),
        (
            lambda content: content["scores"]["top1"].update(last=float("nan")),
            "scores.top1.last=nan: expected a number from 0 to 1",
        ),
        (lambda content: content["scores"].update(kl={"last": float("nan")}), "scores.kl.last=nan: expected a finite"),
        (lambda content: content["scores"]["top1"].update(last=1.01), "scores.top1.last=1.01: expected a number from"),
        (lambda content: content["scores"]["agreement"].update(best=-0.1), "scores.agreement.best=-0.1: expected a"),
        (lambda content: content.update(top1_before_training=99.0), "top1_before_training=99.0: expected a number"),
        (
            lambda content: content.update(paper=PAPER.to_dict() | {"top1": 91.5}),
            "paper.top1=91.5: expected a number from 0 to 1",
        ),
        (lambda content: content["float_run"].update(name=3), "float_run.name=3: expected a string"),
        (lambda content: content.update(version="two"), "version='two': expected a whole number"),
        (lambda content: content.update(epochs=-1), "epochs=-1: expected a whole number of at least 0"),
        (lambda content: content.update(seed=10**400), "seed=1000"),
        (lambda content: content["scores"]["top1"].update(last=10**400), "scores.top1.last=1000"),
        (lambda content: content.update(name="half \ud800"), "name='half \\ud800': expected a string"),
    ],
)
def test_a_wrong_field_is_named(change: Callable[[dict[str, Any]], None], problem: str, tmp_path: Path) -> None:
    content = STUDENT.to_dict()
    change(content)
    file = tmp_path / "record.json"
    file.write_text(json.dumps(content))
    with pytest.raises(SqakdError) as refused:
        read_record(file)
    assert str(refused.value).startswith(f"{file} is not a record of a run ({problem}")
    assert f"; delete {file}" in explain(refused.value)


DEEP = 100_000  # deeper than Python's own limit


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b"\x00\x00", b"NaN", b"1" * 5000, b" " * 16_000_001),
        *(b"[" * DEEP, b"[" * DEEP + b"]" * DEEP, b"[" * 60 + b"]" * 60, b"[" + b"1," * 100_000 + b"1]"),
    ],
    ids=range(14),
)
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(content)
    with pytest.raises(SqakdError) as refused:
        read_record(file)
    assert str(refused.value).startswith(f"{file} is not a record of a run (")
    assert "\n" not in str(refused.value)


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "record.json").mkdir()
    with pytest.raises(SqakdError, match=r"record\.json is not a record of a run \(Is a directory\)"):
        read_record(tmp_path / "record.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SqakdError, match=r"no .*/record\.json: expected the record of a finished run"):
        read_record(tmp_path / "record.json")


def test_reading_records_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'pytorch_lightning'} & set(sys.modules)"
    code = f"import sys, sqakd.runs.record, sqakd.runs.paper, sqakd.runs.export_record; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], cwd=command.ROOT, check=True)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"top1": 0.5, "agreement": 0.75}, 0.5),
        ({"top1": 0.0, "agreement": 0.75}, 0.0),
        ({"agreement": 0.75, "kl": 0.1}, 0.75),
        ({"agreement": 0.0}, 0.0),
        ({}, None),
    ],
)
def test_the_main_score_is_top1_or_else_agreement(scores: dict[str, float], expected: float | None) -> None:
    record = replace(STUDENT, scores={name: score(value) for name, value in scores.items()})
    assert record.main_score == expected


LABELLED = replace(
    STUDENT,
    name="small",
    seed=3,
    packed_bytes=1250,
    scores={"top1": score(0.125), "agreement": score(1.0)},
    float_run=replace(STUDENT.float_run, scores={"top1": score(0.25)}) if STUDENT.float_run else None,
)


def test_the_summary_is_one_line() -> None:
    assert LABELLED.summary() == (
        "small seed 3, top-1 12.50% (best 75.00%), float 25.00%, agrees with its teacher on 100.00%, 1.2 kB packed"
    )
    assert replace(LABELLED, drop_from_float=None).summary() == (
        "small seed 3, top-1 12.50% (best 75.00%), agrees with its teacher on 100.00%, 1.2 kB packed"
    )
    unlabelled = replace(LABELLED, drop_from_float=None, scores={"agreement": score(0.0)})
    assert unlabelled.summary() == "small seed 3, agrees with its teacher on 0.00%, 1.2 kB packed"


def test_the_summary_and_the_metrics_have_the_published_number() -> None:
    record = replace(LABELLED, paper=PAPER, difference_from_paper=-0.5)
    assert "12.50% (best 75.00%), paper 62.50%, float 25.00%," in record.summary()
    metrics = record.metrics()
    assert (metrics["record/paper/top1"], metrics["record/difference_from_paper"]) == (0.625, -0.5)
    released = replace(record, paper=replace(PAPER, compared_with="without _released"))
    assert "paper 62.50% (without _released), float" in released.summary()
    assert "paper" not in LABELLED.summary()
    assert not any("paper" in name for name in LABELLED.metrics())


def test_metrics_are_the_results_under_the_names_for_loggers() -> None:
    record = replace(LABELLED, scores={"agreement": score(0.25)}, drop_from_float=None, images_per_second=None)
    assert record.metrics() == {
        "record/agreement/last": 0.25,
        "record/agreement/best": 0.75,
        "record/agreement/mean_of_last_5": 0.5,
        "record/packed_bytes": 1250,
        "record/bit_operations": record.bit_operations,
        "record/training_seconds": 50.0,
    }


@pytest.mark.parametrize("error", passing.PASSING, ids=lambda error: str(error) or "memory")
def test_a_passing_error_is_no_damage(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for read in (read_record, read_export, lambda file: RunFolder(file.parent).read_config()):
        file = tmp_path / ("record.json" if read in (read_record, read_export) else "config.yaml")
        file.write_text("{}")
        with monkeypatch.context() as patch:
            passing.refuse(patch, file, error)
            with pytest.raises(ReadError) as caught:
                read(file)
        assert explain(caught.value).startswith(f"cannot read {file}: ")
        assert "delete" not in explain(caught.value)

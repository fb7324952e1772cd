"""The campaign's judges: each kind of fault is seen, and a good ending has none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.reliability.attempt import MARKER, Attempt
from tests.reliability.case import Case, Ending, Expected, Fault, unique
from tests.reliability.messages import judge_refusal, judge_success
from tests.reliability.snapshot import snapshot
from tests.reliability.table import table


def faults(found: list[tuple[Fault, str]]) -> set[Fault]:
    return {fault for fault, _ in found}


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("error: recipe.lr='abc': expected a number >= 0\n", set()),
        ("x: epoch 1/2  loss 3.3  top-1 4.69%\nerror: cannot read last.ckpt\n", set()),
        ("usage: python -m sqakd.predict [-h]\n   IMAGE\npredict: error: expected one argument\n", set()),
        ("Traceback (most recent call last):\n  ...\nKeyError: 'x'\n", {Fault.TRACEBACK}),
        ("", {Fault.UNCLEAR}),
        ("error: one\nerror: two\n", {Fault.UNCLEAR}),
        ("error: 'NoneType' object has no attribute 'x'\n", {Fault.UNCLEAR}),
        ("error: wrong\n\nSet the environment variable HYDRA_FULL_ERROR=1\n", {Fault.UNCLEAR}),
        ("error: cannot read a\x1b[2J.png\n", {Fault.UNCLEAR}),
    ],
)
def test_refusal_is_one_clear_line(stderr: str, expected: set[Fault]) -> None:
    assert faults(judge_refusal(stderr)) == expected


def test_refusal_must_name_the_file() -> None:
    message = "error: cannot read runs/a/seed0/record.json: it ends too early\n"
    assert judge_refusal(message, names=("record.json",)) == []
    assert faults(judge_refusal(message, names=("config.yaml",))) == {Fault.UNCLEAR}


def test_success_without_numbers_is_nonsense() -> None:
    assert judge_success("finished: top-1 8.59%, runs/nan-inf/seed0\n", "") == []
    assert faults(judge_success("one.png: cat nan%\n", "")) == {Fault.NONSENSE}


def judged(
    folder: Path, *, status: int, expected: Expected, changes: dict[str, str], stderr: str = "error: no\n"
) -> set[Fault]:
    """Judge a command that makes these changes to a folder with runs/old.txt."""
    (folder / "runs").mkdir()
    (folder / "runs" / "old.txt").write_text("old")
    before = snapshot(folder)
    for name, content in changes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    done = subprocess.CompletedProcess(["x"], status, "", stderr if status else "")
    return faults(Attempt(("train.py",), expected).judge(folder, before, done))


@pytest.mark.parametrize(
    ("status", "expected", "changes", "found"),
    [
        (1, Expected.REFUSED, {}, set()),
        (1, Expected.REFUSED, {"runs/new/.lock": "", "data/cache/x.uint8": "x"}, {Fault.LEFT}),
        (1, Expected.REFUSED, {"data/cache/x.uint8": "x"}, set()),
        (1, Expected.REFUSED, {"runs/old.txt": "new"}, {Fault.LOST}),
        (1, Expected.ACCEPTED, {}, {Fault.NONSENSE}),
        (0, Expected.EITHER, {"runs/new.txt": "new"}, set()),
        (0, Expected.EITHER, {"runs/old.txt": "new"}, {Fault.LOST}),
        (0, Expected.EITHER, {"runs/new.txt.part": "new"}, {Fault.LEFT}),
        (0, Expected.REFUSED, {}, {Fault.NONSENSE}),
        (1, Expected.REFUSED, {MARKER: ""}, {Fault.CODE, Fault.LEFT}),
        (-9, Expected.EITHER, {}, {Fault.TRACEBACK}),
    ],
)
def test_each_fault_of_an_ending_is_seen(
    status: int, expected: Expected, changes: dict[str, str], found: set[Fault], tmp_path: Path
) -> None:
    assert judged(tmp_path, status=status, expected=expected, changes=changes) == found


def test_table_counts_each_case_once_per_fault() -> None:
    rows = [
        {"family": "files", "kind": "k", "name": str(i), "skipped": "", "refused": True, "faults": list(found)}
        | {"command": "python x", "lines": []}
        for i, found in enumerate([[], [["lost", "a"], ["lost", "b"]], [["left", "c"]]])
    ]
    head, _, files, total = table(rows).splitlines()[:4]
    columns = [cell.strip() for cell in head.split("|")]
    for line in (files, total):
        cells = dict(zip(columns, (cell.strip() for cell in line.split("|")), strict=True))
        assert (cells["cases"], cells["refused"], cells["lost"], cells["left"]) == ("3", "3", "1", "1")


def test_two_cases_of_one_name_are_a_mistake() -> None:
    case = Case("files", "kind", "name", lambda _: Ending(False, (), ""))
    with pytest.raises(ValueError, match="files/kind/name"):
        unique([case, case])

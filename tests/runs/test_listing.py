"""Lists of runs: a damaged file of one run is named once, and the other runs are listed."""

from __future__ import annotations

import shutil
from pathlib import Path

import command
import pytest

from sqakd.errors import SqakdError
from sqakd.runs.export_record import read_exports
from sqakd.runs.listing import read_finished

OLD_RUNS = command.ROOT / "tests" / "old_runs" / "version1"
KINDS = ["broken", "empty", "shape", "keys", "bytes", "folder", "link"]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD_RUNS, tmp_path / "runs"))


def damage(file: Path, kind: str) -> None:
    file.unlink(missing_ok=True)
    if kind == "folder":
        file.mkdir()
    elif kind == "link":
        file.symlink_to(file.name)  # to itself
    else:
        content = {"broken": b'{"name": "cut', "empty": b"", "shape": b"[]", "keys": b"{}", "bytes": b"\xff\x00"}
        file.write_bytes(content[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_a_damaged_record_is_left_out_and_named_once(kind: str, runs: Path) -> None:
    whole = read_finished(runs)
    assert len(whole) == 2
    (bad, _), (other, _) = whole
    damage(bad.record, kind)
    errors: list[SqakdError] = []
    found = read_finished(runs, errors.append)
    if kind == "link":  # there is no such file
        assert [folder for folder, _ in found] == [other]
        return
    assert [folder for folder, _ in found] == [other]
    assert [str(error).count(str(bad.record)) for error in errors] == [1]
    with pytest.raises(SqakdError):
        read_finished(runs)


@pytest.mark.parametrize("kind", ["broken", "bytes", "folder"])
def test_a_damaged_export_is_left_out_and_named_once(kind: str, runs: Path) -> None:
    folder = runs / "digits16-resnet20-ewgs-w2a2-sqakd" / "seed0" / "export-exact"
    folder.mkdir()
    damage(folder / "record.json", kind)
    errors: list[SqakdError] = []
    assert list(read_exports(runs, errors.append)) == []
    assert [str(folder / "record.json") in str(error) for error in errors] == [True]

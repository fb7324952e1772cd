"""Lists of runs: a damaged file of one run is named once, and the other runs are listed."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize(
    ("quantizer", "dataset", "config", "changes"),
    [
        ("pact_released", "tiny_imagenet", "quantizer: {first_last: float}", {"quantizer.outer": "float"}),
        ("lsq_released", "tiny_imagenet", "quantizer: {outer: float}", {"quantizer.outer": "float"}),
        ("dorefa_released", "tiny_imagenet", "quantizer: {outer: released}", {}),
        ("pact", "tiny_imagenet", "quantizer: {outer: float}", {}),
        ("pact_released", "digits", "quantizer: {outer: float}", {}),
    ],
)
def test_a_value_that_was_the_default_is_a_change_of_todays_cell(
    quantizer: str, dataset: str, config: str, changes: dict[str, str], runs: Path
) -> None:
    """Otherwise a report would mix runs of the published code's outer layers with runs of float ones."""
    (folder, record), _ = read_finished(runs)
    fields = json.loads(folder.record.read_text())
    choices = fields["choices"] | {"quantizer": quantizer, "dataset": dataset}
    folder.record.write_text(json.dumps(fields | {"quantizer": quantizer, "dataset": dataset, "choices": choices}))
    folder.config.write_text(config)
    (_, found), _ = read_finished(runs)
    assert found.changes == {**record.changes, **changes}

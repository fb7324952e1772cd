"""The picture of one run, drawn again by the command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from made_runs import Made, made_record

from sqakd.report import run_picture
from sqakd.runs.record import write_record


def draw(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["picture.py", *arguments])
    run_picture.main()


def test_without_a_folder_the_usage_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        draw(monkeypatch)
    assert left.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("usage: python -m sqakd.report.run_picture")
    assert "FOLDER" in printed


def test_a_folder_without_a_finished_run_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=rf"error: no {tmp_path}/record\.json: expected the record"):
        draw(monkeypatch, str(tmp_path))


def test_each_folder_gets_a_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        write_record(folder / "record.json", made_record(Made("digits16", "resnet20", "none", 32, "none", 0)))
        (folder / "metrics.csv").write_text("epoch,train/loss,val/top1\n0,2,0.25\n1,1,0.5\n")
    draw(monkeypatch, *map(str, folders))
    files = [folder / "picture.png" for folder in folders]
    assert capsys.readouterr().out.split() == [str(file) for file in files]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)

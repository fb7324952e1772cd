"""Temporary files: what a killed writer left is deleted by the next one, and a living writer's file stays."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import command
import pytest

from sqakd.files import remove_abandoned, replacing, write_text

WRITER = """
import pathlib, sys, time
from sqakd.files import replacing
with replacing(pathlib.Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@contextmanager
def writing(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that is in the middle of writing a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True, cwd=command.ROOT
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["metrics.csv", "[1] a*b.csv"])
def test_the_next_writer_deletes_the_file_of_a_killed_one(name: str, tmp_path: Path) -> None:
    with writing(tmp_path / name) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(names(tmp_path)) == 1
    write_text(tmp_path / name, "whole")
    assert names(tmp_path) == [name]


def test_the_file_of_a_living_writer_stays(tmp_path: Path) -> None:
    with writing(tmp_path / "a.csv"):
        write_text(tmp_path / "a.csv", "whole")
        remove_abandoned(tmp_path)
        assert len(names(tmp_path)) == 2


def test_other_files_stay(tmp_path: Path) -> None:
    """Also those with similar names."""
    kept = [".a.csv.1234", ".a.csv.swp", ".b.csv.0123abcd.part", "a.csv.0123abcd.part", ".a.csv.part"]
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / ".a.csv.89abcdef.part").mkdir()
    (tmp_path / ".a.csv.00000000.part").symlink_to(tmp_path / kept[0])
    before = names(tmp_path)
    write_text(tmp_path / "a.csv", "whole")
    assert names(tmp_path) == sorted([*before, "a.csv"])


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    with replacing(file) as one, replacing(file) as other:
        one.write_text("one")
        other.write_text("other")
    assert file.read_text() == "one"
    assert names(tmp_path) == ["a.csv"]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "written", "")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode

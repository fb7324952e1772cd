"""Temporary files: what a killed writer left is deleted by the next one, and a living writer's file stays."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import command
import pytest

from sqakd.advice import explain
from sqakd.files import ReadError, WriteError, remove_abandoned, replacing, sha256, write_errors, write_text

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


LIMITED = """
import pathlib, resource, signal, sys
from sqakd.advice import explain
from sqakd.files import WriteError, write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(pathlib.Path(sys.argv[1]), "x" * 5_000_000)
except WriteError as error:
    print(explain(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_a_file_that_is_too_large_is_named_with_the_space_and_leaves_nothing(tmp_path: Path) -> None:
    """The system's own limit, so that the error comes from where a full disk's does."""
    file = tmp_path / "a.csv"
    file.write_text("before")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(file)], cwd=command.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"cannot write {file}: File too large (5.0 MB needed, ")
    assert "make room there and repeat the same command" in done.stdout
    assert file.read_text() == "before"
    assert names(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_reported_after_the_temporary_file_is_gone(code: int, tmp_path: Path) -> None:
    def half(file: Path) -> None:
        with replacing(file) as temporary:
            temporary.write_text("half")
            raise OSError(code, os.strerror(code))

    with pytest.raises(WriteError) as caught:
        half(tmp_path / "a.csv")
    assert f"cannot write {tmp_path / 'a.csv'}: {os.strerror(code)} (" in str(caught.value)
    assert "make room" in explain(caught.value)
    assert names(tmp_path) == []


def test_an_error_of_another_file_in_the_block_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"image\.png"), replacing(tmp_path / "a.csv"):
        (tmp_path / "image.png").read_bytes()
    assert names(tmp_path) == []


@pytest.mark.parametrize("place", ["missing/a.csv", "file/a.csv", "folder", "n" * 300])
def test_a_file_that_cannot_be_created_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "content").touch()
    with pytest.raises(WriteError, match="cannot write ") as caught:
        write_text(tmp_path / place, "text")
    assert str(tmp_path / place) in str(caught.value)
    assert names(tmp_path) == ["file", "folder"]


def test_only_errors_of_the_system_are_renamed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mistake"), write_errors(tmp_path):
        raise ValueError("mistake")


def test_a_file_that_does_not_fit_in_memory_is_named(tmp_path: Path) -> None:
    file = tmp_path / "large.pt"
    with file.open("wb") as stream:
        stream.truncate(8 * 2**40)
    with pytest.raises(ReadError, match=f"cannot read {file}: too little memory"):
        sha256(file)

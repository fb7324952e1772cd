"""The folder of an export: only an earlier export is replaced, and no moment of a kill loses it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import command
import pytest
from made_runs import Made, make_export, make_run

from sqakd.advice import explain
from sqakd.export import folder as module
from sqakd.export.errors import ExportError
from sqakd.export.folder import check_folder, exchange, replacing_folder
from sqakd.files import WriteError
from sqakd.runs.export_record import read_exports

MADE = Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0)
# Ends the process at once, as a kill does, when the folder has been renamed as often as the argument says.
KILLED = """
import os, pathlib, shutil, sys
from sqakd.export import folder as module
place, new, times, exchanges = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "True"
done = 0
def counted(function):
    def call(*arguments, **options):
        global done
        result = function(*arguments, **options)
        done += 1
        if done >= times:
            os._exit(9)
        return result
    return call
if not exchanges:
    module.exchange = lambda *_: False
module.exchange = counted(module.exchange)
pathlib.Path.rename = counted(pathlib.Path.rename)
shutil.rmtree = counted(shutil.rmtree)
with module.replacing_folder(place) as temporary:
    shutil.copytree(new, temporary, dirs_exist_ok=True)
    if times == 0:
        os._exit(9)
"""


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Return the folder of an export; the folder new, next to the runs, holds a later one."""
    make_export(make_run(tmp_path / "runs", MADE), MADE)
    place = tmp_path / "runs" / MADE.name / "seed0" / "export-exact"
    shutil.copytree(place, tmp_path / "new")
    (place / "model.onnx").write_text("earlier")
    (tmp_path / "new" / "model.onnx").write_text("later")
    return place


def replace(place: Path) -> None:
    """Replace a folder by the later export."""
    new = next(parent / "new" for parent in place.absolute().parents if (parent / "new").exists())
    with replacing_folder(place) as temporary:
        shutil.copytree(new, temporary, dirs_exist_ok=True)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("exchanges", [True, False])
def test_an_earlier_export_is_replaced(exchanges: bool, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchanges:
        monkeypatch.setattr(module, "exchange", lambda *_: False)
    (export / ".DS_Store").touch()
    (export / "layers.png").touch()
    replace(export)
    assert (export / "model.onnx").read_text() == "later"
    assert not (export / "layers.png").exists()
    assert not hidden(export.parent)


def test_an_absent_and_an_empty_folder_are_filled(export: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "a" / "b"):
        replace(place)
        assert (place / "model.onnx").exists()
    assert not hidden(tmp_path)


def test_the_folder_may_be_here_or_behind_a_link(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(export)
    replace(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (export / "model.onnx").read_text() == "later"
    monkeypatch.chdir(export)
    replace(Path())
    assert not hidden(export.parent)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("notes.txt", "holds notes.txt, which no export wrote"),
        ("model.onnx/x", "holds model.onnx, which no export wrote"),
        ("model.onnx", "holds model.onnx, but no record of an export"),
        ("record.json", "holds record.json, but no record of an export"),
    ],
)
def test_a_folder_of_anything_else_is_refused(name: str, found: str, tmp_path: Path) -> None:
    file = tmp_path / "x" / name
    file.parent.mkdir(parents=True)
    file.write_text("{")
    with pytest.raises(ExportError, match=found) as error, replacing_folder(tmp_path / "x"):
        pytest.fail("the folder was accepted")
    assert "use folder=ANOTHER_FOLDER" in explain(error.value)
    assert file.read_text() == "{"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_users_file_in_an_export_is_not_deleted(export: Path) -> None:
    (export / "model.engine").touch()
    with pytest.raises(ExportError, match=r"holds model\.engine, which no export wrote"):
        check_folder(export)


def test_a_run_a_file_and_the_root_are_refused(export: Path) -> None:
    with pytest.raises(ExportError, match="holds export-exact"):
        check_folder(export.parent)
    with pytest.raises(ExportError, match="is not a folder"):
        check_folder(export / "model.onnx")
    with pytest.raises(ExportError, match="which no export wrote"):
        check_folder(Path("/"))


def test_a_full_disk_is_named_and_the_earlier_export_stays(export: Path) -> None:
    def fill() -> None:
        with replacing_folder(export) as temporary:
            (temporary / "model.onnx").write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(WriteError, match=r"cannot write .*export-exact: No space left on device \(.* free\)") as full:
        fill()
    assert "make room there and repeat the same command" in explain(full.value)
    assert (export / "model.onnx").read_text() == "earlier"
    assert not list(export.parent.glob(".export*"))


def test_what_appears_while_the_export_is_written_is_not_deleted(export: Path) -> None:
    with pytest.raises(ExportError, match=r"notes\.txt"), replacing_folder(export):
        (export / "notes.txt").touch()
    assert (export / "model.onnx").read_text() == "earlier"
    assert not hidden(export.parent)


def test_a_failed_export_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "a" / "b" / "c"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("times", "exchanges"), [*((i, True) for i in range(3)), *((i, False) for i in range(5))])
def test_a_kill_at_any_moment_loses_nothing(times: int, exchanges: bool, export: Path, tmp_path: Path) -> None:
    """After a kill there is one export, and the next one cleans up."""
    words = [str(export), str(tmp_path / "new"), str(times), str(exchanges)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], cwd=command.ROOT, check=False)
    assert killed.returncode == 9
    assert len(list(read_exports(tmp_path / "runs"))) <= 1, "hidden folders are no exports"
    if exchanges:
        assert (export / "model.onnx").read_text() == ("later" if times else "earlier")
    with pytest.raises(ZeroDivisionError), replacing_folder(export):
        raise ZeroDivisionError
    assert (export / "model.onnx").read_text() in ("earlier", "later")
    assert not hidden(export.parent)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_between_the_two_renames_puts_the_old_export_back(
    error: type[BaseException], export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.suffix == ".part":
            raise error
        return rename(path, target)

    monkeypatch.setattr(module, "exchange", lambda *_: False)
    with pytest.raises((ExportError, KeyboardInterrupt)), replacing_folder(export):
        monkeypatch.setattr(Path, "rename", fail)
    assert (export / "model.onnx").read_text() == "earlier"
    assert not hidden(export.parent)


def test_folders_that_an_earlier_version_left_are_cleaned(export: Path) -> None:
    export.rename(export.with_name(".export-exact.4711.old"))
    export.with_name(".export-exact.4711").mkdir()
    (export.with_name(".export-exact.4711") / ".float.pt2").touch()
    with pytest.raises(ZeroDivisionError), replacing_folder(export):
        raise ZeroDivisionError
    assert (export / "model.onnx").read_text() == "earlier"
    assert not hidden(export.parent)


def test_a_users_hidden_folder_stays(export: Path) -> None:
    backup = export.with_name(".export-exact.20260101")
    backup.mkdir()
    (backup / "notes.txt").touch()
    replace(export)
    assert hidden(export.parent) == [backup.name]


def test_an_export_that_is_being_written_stays(export: Path) -> None:
    with replacing_folder(export) as temporary:
        with pytest.raises(ZeroDivisionError), replacing_folder(export):
            raise ZeroDivisionError
        assert temporary.is_dir()
        shutil.copytree(export, temporary, dirs_exist_ok=True)
    assert not hidden(export.parent)


def test_two_folders_are_exchanged_in_one_step(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two folders")
    assert (tmp_path / "a" / "file").read_text() == "b"
    assert (tmp_path / "b" / "file").read_text() == "a"

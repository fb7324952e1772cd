"""The folder of a run: its files, the configuration it belongs to, its lock, and files that appear whole."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import command
import pytest

from sqakd.advice import explain
from sqakd.files import WriteError, replacing, write_text
from sqakd.runs.folder import RunError, RunFolder, find_finished, find_runs
from sqakd.runs.record import Record
from sqakd.runs.spec import Spec

OLD_RUNS = command.ROOT / "tests" / "old_runs" / "version1"

CONFIG: dict[str, Any] = {
    "name": "digits-small",
    "seed": 0,
    "recipe": {"lr": 0.001, "calibration_batches": 1},
    "paths": {"runs": "runs", "data": "data"},
}


def spec(**changes: Any) -> Spec:
    """Return a small specification; `lr` changes the recipe, all else the top of the configuration."""
    config = copy.deepcopy(CONFIG)
    if "lr" in changes:
        config["recipe"]["lr"] = changes.pop("lr")
    return Spec(config | changes, {"dataset": "digits"}, ())


def record(**changes: Any) -> Record:
    return Record.from_dict(OLD_RECORD | changes)


OLD_RECORD: dict[str, Any] = json.loads(next(OLD_RUNS.glob("*ewgs*/seed0/record.json")).read_text())


def test_every_file_of_a_run_is_below_its_folder() -> None:
    folder = RunFolder.of("runs", "digits-small", 3)
    assert folder.path == Path("runs/digits-small/seed3")
    assert folder == RunFolder.of_spec(spec(seed=3))
    assert folder.runs == Path("runs")
    assert folder.sibling("other", 0).path == Path("runs/other/seed0")
    files = [folder.config, folder.metrics, folder.quantizers, folder.record, folder.weights, folder.picture]
    files += [folder.checkpoint, folder.pretraining, folder.export("exact")]
    assert len(set(files)) == 9
    assert all(file.is_relative_to(folder.path) for file in files)


WARMUP, COSINE = "sqakd.training.schedule.WarmupCosine", "sqakd.training.schedule.CosinePerEpoch"


@pytest.mark.parametrize(("saved", "same"), [(WARMUP, True), (COSINE, False)])
def test_an_older_run_s_classes_are_those_of_its_nodes(saved: str, same: bool, tmp_path: Path) -> None:
    """Older runs recorded no classes in place of those of their choices."""
    paths = {"runs": str(tmp_path)}
    old, new = (
        spec(recipe=CONFIG["recipe"] | {"schedule": {"_target_": target}}, paths=paths) for target in (saved, WARMUP)
    )
    folder = RunFolder.of_spec(old)
    with folder.locked():
        folder.claim(old)
    named = replace(new, classes={"recipe.schedule._target_": WARMUP})
    if same:
        folder.check(named)
        return
    with pytest.raises(RunError, match=f"recipe.schedule._target_: {COSINE} -> {WARMUP}"):
        folder.check(named)


def test_runs_are_found_in_the_order_of_their_names(tmp_path: Path) -> None:
    folders = [RunFolder.of(tmp_path, name, seed) for name, seed in (("a", 0), ("a", 1), ("b", 0))]
    for folder in reversed(folders):
        folder.path.mkdir(parents=True)
    (tmp_path / ".sweeps" / "today").mkdir(parents=True)
    (tmp_path / "report.html").touch()
    assert find_runs(tmp_path) == folders


def test_only_folders_of_runs_with_a_record_are_finished(tmp_path: Path) -> None:
    for place in ("b/seed1", "a/seed0", "a/seed0/export-exact", "a/other", "a"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "record.json").touch()
    (tmp_path / "c" / "seed0").mkdir(parents=True)
    found = find_finished(tmp_path)
    assert found == [RunFolder.of(tmp_path, "a", 0), RunFolder.of(tmp_path, "b", 1)]
    assert found[0].inner_records == [tmp_path / "a" / "seed0" / "export-exact" / "record.json"]


def test_epochs_done_are_the_rows_of_the_metrics(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.epochs_done == 0
    for rows in range(3):
        folder.metrics.write_text("epoch\n" + "0\n" * rows)
        assert folder.epochs_done == rows


def test_a_claimed_folder_belongs_to_its_configuration(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "seed0")
    folder.check(spec())
    with folder.locked():
        folder.claim(spec())
    assert folder.read_config() == CONFIG | {"choices": {"dataset": "digits"}}
    before = folder.config.stat().st_mtime_ns
    elsewhere = spec(paths={"runs": "/elsewhere"})
    folder.check(elsewhere)
    folder.claim(elsewhere)
    assert folder.config.stat().st_mtime_ns == before, "the first configuration stays"


@pytest.mark.parametrize("act", ["check", "claim"])
def test_another_configuration_is_refused(act: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.locked():
        folder.claim(spec())
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(RunError) as refused:
        getattr(folder, act)(spec(lr=0.01, seed=1, new="x"))
    assert explain(refused.value) == (
        f"{tmp_path} holds another run: new: (absent) -> x; recipe.lr: 0.001 -> 0.01; seed: 0 -> 1."
        " Its files stay as they are; use name=ANOTHER_NAME to keep both, or delete that folder"
    )
    assert (tmp_path / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["metrics.csv", "weights.pt", "record.json", "checkpoints/last.ckpt"])
def test_files_without_a_configuration_are_refused_and_stay(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(RunError, match=rf"holds {file.name}, but no config\.yaml") as refused:
        RunFolder(tmp_path).check(spec())
    assert "use name=ANOTHER_NAME to keep both" in explain(refused.value)
    assert file.read_text() == "mine"


def test_hidden_folders_are_no_exports(tmp_path: Path) -> None:
    for name in ("export-exact", ".export-exact.1234", ".export-exact.0123abcd.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").touch()
    assert RunFolder(tmp_path).inner_records == [tmp_path / "export-exact" / "record.json"]


def test_a_record_means_finished(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.finished
    assert folder.read_record() is None
    folder.finish(record(seed=5))
    assert folder.finished
    assert folder.read_record() == record(seed=5)
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_folder_below_a_file_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    folder = RunFolder(tmp_path / "runs" / "name" / "seed0")
    folder.check(spec())
    assert folder.read_record() is None
    with pytest.raises(RunError, match=r"cannot write to .*seed0: Not a directory") as refused, folder.locked():
        pytest.fail("the folder does not exist")
    assert explain(refused.value).endswith("use paths.runs=FOLDER")
    with pytest.raises(WriteError, match=r"cannot write .*config\.yaml: Not a directory"):
        folder.claim(spec())
    assert (tmp_path / "runs").read_text() == "not a folder"


def test_a_second_process_waits_for_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events: list[str] = []

    def second() -> None:
        with RunFolder(tmp_path).locked():
            events.append("second")

    thread = threading.Thread(target=second)
    with RunFolder(tmp_path).locked():
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive()
        events.append("first")
    thread.join(timeout=10)
    assert events == ["first", "second"]
    assert capsys.readouterr().out == f"{tmp_path} is being trained by another process; waiting for it\n"


def test_a_process_that_waits_gives_signs_of_life(tmp_path: Path) -> None:
    signs = threading.Semaphore(0)

    def second() -> None:
        with RunFolder(tmp_path).locked(waiting=signs.release, interval=0.05):
            pass

    thread = threading.Thread(target=second)
    with RunFolder(tmp_path).locked():
        thread.start()
        assert all(signs.acquire(timeout=10) for _ in range(3))
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_a_dead_process_holds_no_lock(tmp_path: Path) -> None:
    text = (
        "import pathlib, sys, time\n"
        "from sqakd.runs.folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).locked():\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", text, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=command.ROOT
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        got = threading.Event()

        def take() -> None:
            with RunFolder(tmp_path).locked():
                got.set()

        thread = threading.Thread(target=take)
        thread.start()
        assert not got.wait(timeout=0.5)
        holder.send_signal(signal.SIGKILL)
        assert got.wait(timeout=10)
        thread.join()
    finally:
        holder.kill()
        holder.communicate()


def test_an_error_releases_the_lock(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ZeroDivisionError), folder.locked():
        raise ZeroDivisionError
    with folder.locked():
        pass


def fail_halfway(file: Path) -> None:
    with replacing(file) as temporary:
        temporary.write_text("half")
        raise OSError("the disk is full")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    write_text(file, "old")
    with pytest.raises(OSError, match="the disk is full"):
        fail_halfway(file)
    assert file.read_text() == "old"
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_first_file_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the disk is full"):
        fail_halfway(tmp_path / "record.json")
    assert list(tmp_path.iterdir()) == []


BILLION = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds nothing"),
        (b"[1, 2]", "holds a list"),
        (b"name: [", "cannot read"),
        (b"name: \xff\xfe", "cannot read"),
        (b"name: !!python/object/apply:os.getcwd []", "cannot read"),
        (b"kd: &a\n  again: *a\n", "contains itself"),
        (b"kd: " + b"[" * 100_000, "cannot read"),
        (b"kd: " + b"[" * 60 + b"]" * 60, "nested more than 50 levels"),
        (BILLION.encode(), "more than 100000 values"),
        (b"#" * 16_000_001, "it has 16.0 MB, expected at most 16.0 MB"),
        (b"model: resnet20", "has model: 'resnet20', expected a group of keys"),
        (b"recipe: null", "has recipe: None, expected a group of keys"),
    ],
)
def test_a_damaged_configuration_is_named_in_one_line(content: bytes, reason: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.config.write_bytes(content)
    with pytest.raises(RunError) as refused:
        folder.check(spec())
    text = explain(refused.value)
    assert str(folder.config) in text
    assert reason in text
    assert "\n" not in text
    assert text.endswith("restore the file, or delete the run's folder")


def test_a_folder_in_place_of_the_configuration_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.config.mkdir()
    with pytest.raises(RunError, match=r"cannot read .*config\.yaml: Is a directory"):
        folder.check(spec())

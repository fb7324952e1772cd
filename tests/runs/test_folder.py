"""A run's folder: whose it is, whether it is done, who may write to it, and that files appear whole."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import command
import pytest
import yaml
from made_runs import Made, made_record

from sqakd.files import replacing, write_text
from sqakd.runs.folder import Run, RunError
from sqakd.runs.spec import NOT_IDENTITY, differences, identity

CONFIG: dict[str, Any] = {
    "name": "digits-small",
    "seed": 0,
    "recipe": {"lr": 0.001, "optimizer": {"_target_": "torch.optim.Adam"}, "gradient_clip": None},
    "dataset": {"mean": [0.5, 0.5], "root": "data", "download": False, "cache": "cache", "eval_batch_size": 9},
    "trainer": {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "32-true"}
    | {"compile": False, "channels_last": True},
    "callbacks": {
        "progress": {"lines": 10},
        "quantizer_statistics": {"file": "runs/here"},
        "histograms": {"every_n_epochs": 1},
        "hessian_scaling": {"batches": 3},
    },
    "paths": {"runs": "runs", "data": "data"},
    "logger": {},
    "plan": False,
    "quantizer": None,
}


def changed(key: str, value: Any) -> dict[str, Any]:
    """CONFIG with another value at a dotted key."""
    config = copy.deepcopy(CONFIG)
    *way, last = key.split(".")
    node = config
    for step in way:
        node = node[step]
    node[last] = value
    return config


def leaves(config: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in config.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [prefix + key]
    return found


@pytest.mark.parametrize("key", leaves(CONFIG))
def test_only_what_decides_the_result_is_identity(key: str) -> None:
    ignored = any(key == name or key.startswith(f"{name}.") for name in NOT_IDENTITY)
    assert (identity(changed(key, "another")) == identity(CONFIG)) == ignored
    assert (key in identity(CONFIG)) != ignored


def test_identity_ignores_neither_too_much_nor_too_little() -> None:
    assert identity(CONFIG) == {
        "name": "digits-small",
        "seed": 0,
        "recipe.lr": 0.001,
        "recipe.optimizer._target_": "torch.optim.Adam",
        "recipe.gradient_clip": None,
        "dataset.mean": [0.5, 0.5],
        "trainer.precision": "32-true",
        "callbacks.hessian_scaling.batches": 3,
        "dataset.eval_batch_size": 9,
        "quantizer": None,
    }
    # A key that only begins like an ignored one counts.
    assert identity({"paths_of_mine": 1, "trainer": {"devices_wanted": 2}}) == {
        "paths_of_mine": 1,
        "trainer.devices_wanted": 2,
    }


def test_differences_say_both_values() -> None:
    there = {"recipe.lr": 0.001, "seed": 0, "gone": None}
    here = {"recipe.lr": 0.01, "seed": 0, "new": [1, 2]}
    assert differences(there, here) == ["gone: None -> (absent)", "new: (absent) -> [1, 2]", "recipe.lr: 0.001 -> 0.01"]
    assert differences(there, dict(reversed(there.items()))) == []


def test_a_claimed_folder_is_its_configurations(tmp_path: Path) -> None:
    run = Run(tmp_path / "seed0", CONFIG)
    run.check()
    with run.locked():
        run.claim()
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == CONFIG
    before = (run.folder / "config.yaml").stat().st_mtime_ns
    elsewhere = Run(run.folder, changed("paths.runs", "/elsewhere"))
    elsewhere.check()
    elsewhere.claim()
    assert (run.folder / "config.yaml").stat().st_mtime_ns == before, "the first configuration stays"


@pytest.mark.parametrize("act", ["check", "claim"])
def test_another_configuration_is_refused(act: str, tmp_path: Path) -> None:
    with Run(tmp_path, CONFIG).locked():
        Run(tmp_path, CONFIG).claim()
    before = (tmp_path / "config.yaml").read_bytes()
    other = changed("recipe.lr", 0.01) | {"seed": 1, "new": "x"}
    with pytest.raises(RunError) as refused:
        getattr(Run(tmp_path, other), act)()
    assert str(refused.value) == (
        f"{tmp_path} holds another run: new: (absent) -> x; recipe.lr: 0.001 -> 0.01; seed: 0 -> 1."
        " Its files stay as they are: type name=ANOTHER_NAME to keep both, or delete that folder"
    )
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_a_record_means_finished(tmp_path: Path) -> None:
    run, record = Run(tmp_path, CONFIG), made_record(Made("digits16", "resnet20", "ewgs", 2, "sqakd", 0))
    assert run.record() is None
    run.finish(record)
    assert Run(tmp_path, CONFIG).record() == record
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_folder_below_a_file_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    run = Run(tmp_path / "runs" / "name" / "seed0", CONFIG)
    run.check()
    assert run.record() is None
    with pytest.raises(RunError, match=r"cannot write to .*seed0: Not a directory; .*paths\.runs=FOLDER"), run.locked():
        pytest.fail("the folder does not exist")
    with pytest.raises(RunError, match=r"cannot write .*config\.yaml.*paths\.runs=FOLDER"):
        run.claim()
    assert (tmp_path / "runs").read_text() == "not a folder"


def test_the_second_waits_for_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events: list[str] = []

    def second() -> None:
        with Run(tmp_path, CONFIG).locked():
            events.append("second")

    thread = threading.Thread(target=second)
    with Run(tmp_path, CONFIG).locked():
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive()
        events.append("first")
    thread.join(timeout=10)
    assert events == ["first", "second"]
    assert capsys.readouterr().out == f"{tmp_path} is being trained by another process; waiting for it\n"


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    text = (
        "import pathlib, sys, time\n"
        "from sqakd.runs.folder import Run\n"
        "with Run(pathlib.Path(sys.argv[1]), {}).locked():\n"
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
            with Run(tmp_path, CONFIG).locked():
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


def test_an_error_gives_the_lock_back(tmp_path: Path) -> None:
    run = Run(tmp_path, CONFIG)
    with pytest.raises(ZeroDivisionError), run.locked():
        raise ZeroDivisionError
    with run.locked():
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

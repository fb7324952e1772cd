"""The checkpoint that a training continues from: the last whole one, or one sentence that names the damaged file."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import passing
import pytest
import torch

from sqakd.advice import explain
from sqakd.files import ReadError
from sqakd.runs.checkpoint import CheckpointError
from sqakd.runs.saved_state import find_start
from sqakd.runs.seal import sealed
from sqakd.runs.state_files import has_state, previous

RUN = "a seed 0"


def content(epoch: int = 1, **changes: Any) -> dict[str, Any]:
    whole = {"epoch": epoch, "global_step": 7, "state_dict": {"w": torch.ones(3)}, "loops": {}, "callbacks": {}}
    whole |= {"optimizer_states": [{}], "lr_schedulers": [], "pytorch-lightning_version": "2.6", "rng": torch.zeros(2)}
    return {key: value for key, value in {**whole, "run": RUN, **changes}.items() if value is not None}


def damage(file: Path, kind: str) -> None:
    """Replace a file by something that is no whole checkpoint."""
    whole = bytes(sealed(content()))
    as_bytes = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "one bit": whole[:700] + bytes([whole[700] ^ 4]) + whole[701:],
        "text": b"not a checkpoint",
        "json": json.dumps({"epoch": 1}).encode(),
        "another pickle": pickle.dumps({"epoch": 1}),
        "missing keys": bytes(sealed(content(callbacks=None))),
        "wrong types": bytes(sealed(content(loops=[1]))),
        "no optimizer": bytes(sealed(content(optimizer_states=[]))),
        "a list": bytes(sealed([1, 2])),
        "another run": bytes(sealed(content(run="b seed 3"))),
    }
    if kind == "a folder":
        file.mkdir()
    elif kind == "a dangling link":
        file.symlink_to("nowhere")
    else:
        file.write_bytes(as_bytes[kind])


KINDS = (
    *("empty", "truncated", "one bit", "text", "json", "another pickle", "missing keys", "wrong types", "a list"),
    *("no optimizer", "another run", "a folder", "a dangling link"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_checkpoint_is_named_in_one_line(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    damage(file, kind)
    with pytest.raises(CheckpointError) as caught:
        find_start(file, run=RUN)
    text = explain(caught.value)
    assert str(file) in text
    assert text.endswith(f"delete {tmp_path}/last*.ckpt, and the same command trains from the beginning")
    assert "\n" not in text
    assert "weights_only" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_but_one_serves_if_the_last_is_damaged(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    damage(file, kind)
    previous(file).write_bytes(sealed(content(epoch=4)))
    start = find_start(file, run=RUN)
    assert start.file == previous(file)
    assert str(file) in start.note
    assert start.note.endswith("the run continues from last.previous.ckpt (epoch 4)")


def test_without_a_checkpoint_a_training_begins(tmp_path: Path) -> None:
    assert find_start(tmp_path / "last.ckpt", run=RUN).file is None
    assert not has_state(tmp_path / "last.ckpt")


def test_a_kill_between_two_renames_leaves_the_last_but_one(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    previous(file).write_bytes(sealed(content()))
    start = find_start(file, run=RUN)
    assert (start.file, start.note) == (previous(file), "")
    assert has_state(file)


def test_a_checkpoint_of_an_earlier_version_has_no_checksum_and_no_run(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    torch.save(content(run=None), file)
    assert find_start(file, run=RUN).file == file


def test_both_damaged_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    damage(file, "empty")
    damage(previous(file), "text")
    with pytest.raises(CheckpointError) as caught:
        find_start(file, run=RUN)
    assert str(file) in str(caught.value)
    assert str(previous(file)) in str(caught.value)


@pytest.mark.parametrize("error", passing.PASSING, ids=lambda error: str(error) or "memory")
@pytest.mark.parametrize("before", [True, False])
def test_a_passing_error_is_no_damage(
    error: BaseException, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint before would serve as well, but the training would then replace the good one."""
    file = tmp_path / "last.ckpt"
    file.write_bytes(sealed(content()))
    if before:
        previous(file).write_bytes(sealed(content(epoch=0)))
    passing.refuse(monkeypatch, file, error)
    with pytest.raises(ReadError) as caught:
        find_start(file, run=RUN)
    text = explain(caught.value)
    assert text.startswith(f"cannot read {file}: {getattr(error, 'strerror', None) or 'too little memory'}; ")
    assert text.endswith("the same command continues once the file can be read")
    assert "delete" not in text
    monkeypatch.undo()
    assert find_start(file, run=RUN).file == file


def test_a_lost_disk_is_not_the_absence_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training would begin again and replace the checkpoint."""

    def lost(path: Path) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(Path, "lstat", lost)
    with pytest.raises(ReadError, match=r"cannot read .*last\.ckpt: "):
        find_start(tmp_path / "last.ckpt", run=RUN)

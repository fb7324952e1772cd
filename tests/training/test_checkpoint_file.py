"""The checkpoint file: the one before is kept, a damaged one is not, and a full disk costs only the last but one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from sqakd.files import WriteError
from sqakd.runs.seal import check_seal
from sqakd.runs.state_files import previous
from sqakd.training.checkpoint_file import CheckpointFile


def epoch(file: Path) -> int:
    check_seal(file)
    return int(torch.load(file, weights_only=True)["epoch"])


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    file, writer = tmp_path / "new" / "last.ckpt", CheckpointFile(keep=True)
    for i in range(3):
        writer.save_checkpoint({"epoch": i}, file)
    assert (epoch(file), epoch(previous(file))) == (2, 1)
    assert len(list(file.parent.iterdir())) == 2


def test_a_damaged_checkpoint_does_not_replace_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    for i in range(2):
        CheckpointFile(keep=True).save_checkpoint({"epoch": i}, file)
    file.write_bytes(b"damaged")
    writer = CheckpointFile(keep=False)
    writer.save_checkpoint({"epoch": 2}, file)
    assert (epoch(file), epoch(previous(file))) == (2, 0)
    writer.save_checkpoint({"epoch": 3}, file)
    assert (epoch(file), epoch(previous(file))) == (3, 2)


def test_without_room_for_three_the_last_but_one_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, writer = tmp_path / "last.ckpt", CheckpointFile(keep=True)
    for i in range(2):
        writer.save_checkpoint({"epoch": i}, file)
    write, room = Path.write_bytes, [2]

    def full(path: Path, content: bytes) -> int:
        if len(list(tmp_path.glob("*.ckpt"))) >= room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    writer.save_checkpoint({"epoch": 2}, file)
    assert (epoch(file), epoch(previous(file))) == (2, 1)
    room[0] = 1
    with pytest.raises(WriteError, match=r"last\.ckpt: No space left on device \(\d\.\d kB needed, .* free\)"):
        writer.save_checkpoint({"epoch": 3}, file)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert epoch(file) == 2

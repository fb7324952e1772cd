"""Checksums in files of torch.save: flipped bits and shorter files are found, and whole files load as before."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sqakd.runs.seal import LENGTH, DamagedError, check_seal, sealed

CONTENT: dict[str, Any] = {"state_dict": {str(i): torch.arange(40.0) + i for i in range(20)}, "epoch": 3}


def saved(file: Path) -> bytes:
    """Return the bytes of a file that torch.save wrote, without a checksum of its own."""
    torch.save(CONTENT, file)
    return file.read_bytes()


def sealed_bytes(file: Path) -> bytes:
    return bytes(sealed(CONTENT))


def same(content: Any) -> bool:
    tensors = content["state_dict"]
    return content["epoch"] == 3 and all(torch.equal(tensors[name], t) for name, t in CONTENT["state_dict"].items())


@pytest.mark.parametrize("write", [saved, sealed_bytes])
def test_a_whole_file_passes_and_loads(write: Callable[[Path], bytes], tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    file.write_bytes(write(file))
    check_seal(file)
    assert same(torch.load(file, weights_only=True))


@pytest.mark.parametrize("write", [saved, sealed_bytes])
def test_no_flipped_bit_changes_the_content_unseen(write: Callable[[Path], bytes], tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    whole, seen = write(file), 0
    for bit in random.Random(0).sample(range(8 * len(whole)), 400):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            check_seal(file)
            assert same(torch.load(file, weights_only=True)), bit
        except AssertionError:
            raise
        except Exception:  # the file is refused, by the checksum or by torch
            seen += 1
    assert seen > (390 if write is sealed_bytes else 100)


def test_each_byte_of_a_sealed_file_counts(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    whole = bytes(sealed(CONTENT))
    for position in range(0, len(whole) - LENGTH, 97):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(DamagedError):
            check_seal(file)


@pytest.mark.parametrize("write", [saved, sealed_bytes])
def test_a_shorter_file_is_refused(write: Callable[[Path], bytes], tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    whole = write(file)
    for length in (4, 100, len(whole) // 2, len(whole) - LENGTH - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            check_seal(file)


@pytest.mark.parametrize("content", [CONTENT, {"a": torch.zeros(0), "b": torch.randn(3)}])
def test_a_file_that_torch_wrote_without_checksums_passes(content: Any, tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    check_seal(tmp_path / "a.pt")


def test_one_damaged_tensor_next_to_an_empty_one_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(0), "b": torch.full((3,), 7.0)}, file)
    file.write_bytes(file.read_bytes().replace(torch.full((3,), 7.0).numpy().tobytes(), bytes(12)))
    with pytest.raises(DamagedError, match="the checksum of its part"):
        check_seal(file)

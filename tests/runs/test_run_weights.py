"""The weights of a finished run: a changed or missing file is named with what to do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import command
import passing
import pytest
import yaml
from torch import nn

from sqakd.advice import explain
from sqakd.files import ReadError, sha256, write_text
from sqakd.runs.checkpoint import CheckpointError, save_weights
from sqakd.runs.folder import RunFolder
from sqakd.runs.record import Record, read_record
from sqakd.runs.run_weights import load_run_weights

OLD_RUN = command.ROOT / "tests/old_runs/version1/digits16-resnet20-none-w32a32-none/seed0"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(OLD_RUN, tmp_path / "seed0")))


@pytest.fixture
def record(folder: RunFolder) -> Record:
    return replace(read_record(folder.record), weights_sha256=sha256(folder.weights))


def test_whole_weights_are_loaded(folder: RunFolder, record: Record) -> None:
    weights, facts = load_run_weights(folder, record)
    assert "linear.weight" in weights
    assert facts["num_classes"] == 10


@pytest.mark.parametrize("known", [True, False])
def test_one_flipped_bit_is_refused(known: bool, folder: RunFolder, record: Record) -> None:
    """An early record has no checksum, but the file's parts have."""
    content = bytearray(folder.weights.read_bytes())
    content[len(content) // 2] ^= 1
    folder.weights.write_bytes(content)
    with pytest.raises(CheckpointError) as refused:
        load_run_weights(folder, record if known else replace(record, weights_sha256=None))
    assert str(folder.weights) in str(refused.value)
    if known:
        assert f"delete {folder.record}" in explain(refused.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "empty"])
def test_other_damage_is_named(kind: str, folder: RunFolder, record: Record) -> None:
    folder.weights.unlink()
    if kind == "folder":
        folder.weights.mkdir()
    elif kind == "empty":
        folder.weights.touch()
    with pytest.raises(CheckpointError, match=r"weights\.pt"):
        load_run_weights(folder, record)


@pytest.mark.parametrize("error", passing.PASSING, ids=lambda error: str(error) or "memory")
def test_a_passing_error_is_no_damage(
    error: BaseException, folder: RunFolder, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing.refuse(monkeypatch, folder.weights, error)
    with pytest.raises(ReadError) as caught:
        load_run_weights(folder, record)
    assert explain(caught.value).startswith(f"cannot read {folder.weights}: ")
    assert "delete" not in explain(caught.value)


def test_a_configuration_of_another_network_is_refused(tmp_path: Path) -> None:
    """The weights describe their network themselves, and their checksum covers the description."""
    folder = RunFolder(tmp_path / "seed0")
    folder.path.mkdir()
    weight = {"_target_": "sqakd.quantization.quantizers.lsq.LearnedStep", "bits": 2}
    saved = {"model": {"net": {"blocks": 1}, "first": None}, "quantizer": {"weight": weight}, "seed": 0}
    write_text(folder.config, yaml.safe_dump(saved))
    save_weights(folder.weights, nn.Linear(1, 1), {"model": saved["model"], "quantizer": saved["quantizer"]})
    record = replace(read_record(RunFolder(OLD_RUN).record), weights_sha256=sha256(folder.weights))
    assert load_run_weights(folder, record)[1]["quantizer"] == {"weight": weight}
    for changed, message in (
        ({"weight": weight | {"bits": 3}}, r"quantizer\.weight\.bits: 3 -> 2"),
        ({"weight": weight, "layer_bits": {"conv1": 4}}, r"quantizer\.layer_bits: conv1:4 -> "),
        ({"weight": weight | {"_target_": "sqakd.X"}}, r"quantizer\.weight\._target_: sqakd\.X -> sqakd\.quant"),
    ):
        write_text(folder.config, yaml.safe_dump(saved | {"quantizer": changed}))
        with pytest.raises(CheckpointError, match=r"config\.yaml was changed after the run: " + message):
            load_run_weights(folder, record)

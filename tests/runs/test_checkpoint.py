"""Weights files: round trip, foreign layouts, refused files, and failed writes."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sqakd.advice import explain
from sqakd.files import WriteError
from sqakd.models.resnet import CifarResNet
from sqakd.runs.checkpoint import CheckpointError, load_weights, restore, save_safetensors, save_weights

Save = Callable[[Path, nn.Module, dict[str, Any]], None]
FACTS: dict[str, Any] = {"num_classes": 10, "class_names": ["a", "b"], "mean": [0.1, 0.2], "record": {"seed": 3}}


def network(classes: int = 10, blocks: int = 1, seed: int = 0) -> CifarResNet:
    torch.manual_seed(seed)
    return CifarResNet(blocks=blocks, num_classes=classes)


def state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the network's tensors."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


@pytest.mark.parametrize(("name", "save"), [("weights.pt", save_weights), ("weights.safetensors", save_safetensors)])
def test_saved_weights_and_facts_come_back_unchanged(name: str, save: Save, tmp_path: Path) -> None:
    file, saved, other = tmp_path / name, network(seed=1), network(seed=2)
    saved(torch.randn(4, 3, 32, 32))  # batch norm's statistics are no longer their initial values
    save(file, saved, FACTS)
    weights, facts = load_weights(file)
    assert facts == FACTS
    assert same_tensors(weights, saved.state_dict())
    assert not same_tensors(weights, other.state_dict())
    restore(other, weights, source=str(file))
    assert same_tensors(other.state_dict(), saved.state_dict())
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_tensors_that_share_memory_are_saved_as_safetensors(tmp_path: Path) -> None:
    tied = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    tied[1].weight = tied[0].weight
    save_safetensors(tmp_path / "weights.safetensors", tied, FACTS)
    assert same_tensors(load_weights(tmp_path / "weights.safetensors")[0], tied.state_dict())


def test_the_file_is_plain_data(tmp_path: Path) -> None:
    save_weights(tmp_path / "weights.pt", network(), FACTS)
    content = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert content.keys() == {"weights", "facts"}
    assert all(type(tensor) is Tensor and not tensor.requires_grad for tensor in content["weights"].values())


class Malice:
    """An object whose unpickling runs code, which would make the folder `trace`."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_code_is_not_opened(zipped: bool, tmp_path: Path) -> None:
    file, trace = tmp_path / "stranger.pth", tmp_path / "it-ran"
    content = {"state_dict": state(network()), "extra": Malice(trace)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="loading it could run code") as error:
        load_weights(file)
    assert "torch.save(model.state_dict(), FILE)" in explain(error.value)
    assert not trace.exists()


def test_a_plain_pickle_with_code_is_not_opened(tmp_path: Path) -> None:
    file, trace = tmp_path / "stranger.pkl", tmp_path / "it-ran"
    file.write_bytes(pickle.dumps(Malice(trace)))
    with pytest.raises(CheckpointError):
        load_weights(file)
    assert not trace.exists()


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*absent") as error:
        load_weights(tmp_path / "absent.pt")
    assert "teacher.checkpoint=FILE" in explain(error.value)


def test_damaged_files_are_refused_and_named(tmp_path: Path) -> None:
    whole = tmp_path / "weights.pt"
    save_weights(whole, network(), FACTS)
    content = whole.read_bytes()
    for name, damaged in (
        ("empty", b""),
        ("half", content[: len(content) // 2]),
        ("text", b"<html>404 not found</html>"),
        ("flipped", content[:2000] + bytes(b ^ 255 for b in content[2000:2400]) + content[2400:]),
    ):
        file = tmp_path / f"{name}.pt"
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=name):
            load_weights(file)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], 5, {"weights": {}}, {"weights": {"a": 1}}])
def test_files_without_tensors_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="expected a state dict"):
        load_weights(tmp_path / "other.pt")


def test_another_network_is_refused_and_nothing_is_loaded() -> None:
    model = network(blocks=1)
    before = state(model)
    with pytest.raises(CheckpointError, match=r"big\.pt was made .*: it lacks nothing and adds") as error:
        restore(model, state(network(blocks=2, seed=1)), source="big.pt")
    assert "model@teacher=" in explain(error.value)
    with pytest.raises(CheckpointError, match=r"linear\.\w+ has shape .*seven\.pt has another number of classes"):
        restore(model, state(network(classes=7, seed=1)), source="seven.pt")
    assert same_tensors(model.state_dict(), before)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.pt"
    save_weights(file, network(seed=1), FACTS)
    before = file.read_bytes()

    def disk_is_full(target: Path, content: bytes) -> None:
        target.write_text("half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_is_full)
    with pytest.raises(WriteError, match=r"weights\.pt: No space left on device \(\d+\.\d kB needed, .* free\)"):
        save_weights(file, network(seed=2), FACTS)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]

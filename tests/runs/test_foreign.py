"""Weights in other people's files: the one part that fits the network is found, or the keys of the file are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sqakd.advice import explain
from sqakd.models.resnet import CifarResNet, PlainCifarResNet
from sqakd.runs.checkpoint import CheckpointError, restore
from sqakd.runs.foreign import find_weights
from sqakd.runs.layout import Layout

Tensors = dict[str, Tensor]


def network(classes: int = 10, blocks: int = 1, seed: int = 0) -> CifarResNet:
    torch.manual_seed(seed)
    return CifarResNet(blocks=blocks, num_classes=classes)


LAYOUT = Layout.of(network)
OTHER = network(seed=2).state_dict()  # the same network with other weights


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


FILES: dict[str, Callable[[Tensors], Any]] = {
    "bare": lambda w: w,
    "sorted": lambda w: dict(sorted(w.items())),
    "weights": lambda w: {"weights": w},
    "state_dict": lambda w: {"state_dict": w, "epoch": 3, "best_acc1": torch.tensor(0.5)},
    "net": lambda w: {"net": w, "acc": 93.1, "epoch": 199},
    "model": lambda w: {"model": w, "optimizer": {"state": {0: {"m": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}},
    "an unusual key": lambda w: {"student_final": w, "opt": {"lr": 0.1}},
    "nested": lambda w: {"checkpoint": {"module": w}, "args": {"depth": 20}},
    "with a number": lambda w: {**w, "epoch": 3},
    "parallel": lambda w: {"state_dict": prefixed("module.", w)},
    "parallel inside": lambda w: {name.replace("layer1.", "layer1.module."): tensor for name, tensor in w.items()},
    "compiled": lambda w: prefixed("_orig_mod.", w),
    "parallel of compiled": lambda w: {"model": prefixed("module._orig_mod.", w)},
    "compiled of parallel": lambda w: prefixed("_orig_mod.module.", w),
    "parallel beside a criterion": lambda w: {**prefixed("module.", w), "criterion.center": torch.zeros(10)},
    "lightning": lambda w: {"state_dict": {**prefixed("net.", w), "metric.total": torch.zeros(())}, "callbacks": {}},
    "backbone": lambda w: {**prefixed("backbone.", w), "projector.0.weight": torch.zeros(8, 64)},
    "auxiliary heads": lambda w: {**w, "aux1.fc.weight": torch.zeros(10, 16), "auxiliary_head.bias": torch.zeros(10)},
    "counters": lambda w: {**w, "total_ops": torch.zeros(1), "layer1.0.conv1.total_params": torch.zeros(1)},
    "without steps": lambda w: {name: t for name, t in w.items() if not name.endswith("num_batches_tracked")},
    "parameters": lambda w: {name: nn.Parameter(t) if t.is_floating_point() else t for name, t in w.items()},
    "the average beside": lambda w: {"state_dict": w, "state_dict_ema": OTHER},
    "the average beside, in torchvision": lambda w: {
        "model": w,
        "model_ema": {**prefixed("module.", OTHER), "n_averaged": torch.tensor(5)},
    },
    "the average beside, by prefix": lambda w: {"state_dict": {**prefixed("ema.module.", OTHER), **prefixed("m.", w)}},
    "the average alone": lambda w: {"ema": w, "updates": 7},
    "the same twice": lambda w: {"net": w, "best": w},
}


def check(file: Path, expected: Tensors) -> str:
    """Load a file into a network and compare its tensors; return the note."""
    found, model = find_weights(file, LAYOUT), network(seed=3)
    assert found.classes == 10
    assert found.facts == {}
    restore(model, found.tensors, source=str(file))
    for name, tensor in model.state_dict().items():
        if name in expected:
            assert torch.equal(tensor, expected[name].to(tensor.dtype)), name
    return found.note


@pytest.mark.parametrize("kind", FILES)
def test_the_part_that_fits_is_found(kind: str, tmp_path: Path) -> None:
    weights = network(seed=1).state_dict()
    torch.save(FILES[kind](weights), tmp_path / "theirs.pth")
    check(tmp_path / "theirs.pth", weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = {name: t.to(dtype) for name, t in network(seed=1).state_dict().items()}
    torch.save({"net": weights}, tmp_path / "half.pth")
    check(tmp_path / "half.pth", weights)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    weights = network(seed=1).state_dict()
    save_file(prefixed("model.", weights), tmp_path / "theirs.safetensors")
    check(tmp_path / "theirs.safetensors", weights)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "theirs.safetensors").read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is not a readable checkpoint"):
        find_weights(tmp_path / "cut.safetensors", LAYOUT)


def test_the_note_names_what_was_taken_and_what_was_not(tmp_path: Path) -> None:
    file, weights = tmp_path / "theirs.pth", network(seed=1).state_dict()
    for kind, parts in (
        ("the average beside", ("took 'state_dict'", "also fits: 'state_dict_ema'")),
        ("parallel beside a criterion", ("took 'top level'", "left out: criterion.center")),
        ("backbone", ("prefix backbone.", "left out: projector.0.weight")),
    ):
        torch.save(FILES[kind](weights), file)
        note = check(file, weights)
        assert all(part in note for part in parts), note
    for kind in ("bare", "net", "parallel", "counters", "the same twice"):
        torch.save(FILES[kind](weights), file)
        assert check(file, weights) == ""


def test_two_networks_of_equal_rank_are_refused(tmp_path: Path) -> None:
    torch.save({"student": network(seed=1).state_dict(), "teacher": OTHER}, tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match="several networks that fit: 'student'; 'teacher'") as error:
        find_weights(tmp_path / "two.pth", LAYOUT)
    assert "torch.save(model.state_dict(), FILE)" in explain(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"net": network(blocks=2).state_dict(), "acc": 1}, "made for another network: it lacks nothing .*: net, acc$"),
        ({"encoder.q": torch.zeros(3), "epoch": 1}, "it lacks bn1.*keys of the file: encoder, epoch$"),
        ({**network().state_dict(), "conv1.weight": torch.zeros(16, 1, 3, 3)}, r"conv1\.weight has shape \(16, 1, 3"),
        (
            {n: t.to(torch.int8) for n, t in network().state_dict().items()},
            "has type torch.int8, expected floating point",
        ),
        (
            {n: t.to_sparse() if t.ndim == 4 else t for n, t in network().state_dict().items()},
            "conv1.weight has the layout torch.sparse_coo, expected a plain tensor",
        ),
        ({n: t.to("meta") for n, t in network().state_dict().items()}, "has no values .a meta tensor., expected"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_keys(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message.removesuffix("$")) as error:
        find_weights(tmp_path / "other.pth", LAYOUT)
    assert "other.pth" in str(error.value)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], 5, {"state_dict": {}}])
def test_files_without_tensors_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="expected a state dict"):
        find_weights(tmp_path / "other.pt", LAYOUT)


def test_the_plain_network_and_the_one_with_a_last_norm_are_not_confused(tmp_path: Path) -> None:
    """The network without the norm would ignore the norm's tensors, and so compute something else."""
    plain = PlainCifarResNet(blocks=1, num_classes=10)
    assert plain.state_dict().keys() == {name for name in OTHER if not name.startswith("bn2.")}
    torch.save({"state_dict": prefixed("module.", plain.state_dict()), "best_prec1": 91.7}, tmp_path / "plain.th")
    torch.save(OTHER, tmp_path / "normed.pth")
    layout = Layout.of(lambda classes: PlainCifarResNet(blocks=1, num_classes=classes))
    found = find_weights(tmp_path / "plain.th", layout)
    restore(plain, found.tensors, source="plain.th")
    assert found.classes == 10
    for file, other in (("plain.th", LAYOUT), ("normed.pth", layout)):
        with pytest.raises(CheckpointError, match=r"made for another network: .*bn2\."):
            find_weights(tmp_path / file, other)

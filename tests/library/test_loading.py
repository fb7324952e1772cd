"""`load`: the network of a run, or weights for a network in memory."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import command
import library_parts
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import sqakd
from sqakd.library.presets import composed
from sqakd.models.resnet import CifarResNet
from sqakd.quantization.layers import quantizers
from sqakd.runs.checkpoint import load_weights, save_safetensors

RUN = command.ROOT / "tests" / "old_runs" / "version1" / "digits16-resnet20-ewgs-w2a2-sqakd" / "seed0"


@pytest.mark.parametrize("path", [RUN, RUN / "weights.pt"])
def test_a_run_s_network_has_its_weights_and_its_ranges(path: Path) -> None:
    network = sqakd.load(path)
    weights, _ = load_weights(RUN / "weights.pt")
    assert not network.training
    assert {q.bits for q in quantizers(network)} == {2}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_weights_are_loaded_into_a_copy_of_a_network(tmp_path: Path) -> None:
    student = sqakd.quantize(library_parts.network())
    sqakd.calibrate(student, library_parts.images())
    torch.save({"net": {f"module.{k}": v for k, v in student.state_dict().items()}, "epoch": 3}, tmp_path / "mine.pt")
    fresh = sqakd.quantize(library_parts.network(seed=1))
    loaded = sqakd.load(tmp_path / "mine.pt", fresh)
    assert torch.equal(loaded(library_parts.images()), student.eval()(library_parts.images()))
    assert not any(bool(q.calibrated) for q in quantizers(fresh))


def test_safetensors_are_read(tmp_path: Path) -> None:
    network = library_parts.network()
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    loaded = sqakd.load(tmp_path / "mine.safetensors", library_parts.network(seed=1))
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_what_is_no_run_or_fits_no_network_is_refused(tmp_path: Path) -> None:
    torch.save(library_parts.network().state_dict(), tmp_path / "mine.pt")
    with pytest.raises(sqakd.SqakdError, match="does not describe its network \\(it lacks model, quantizer"):
        sqakd.load(tmp_path / "mine.pt")
    with pytest.raises(sqakd.SqakdError, match="no checkpoint at"):
        sqakd.load(tmp_path / "other.pt", library_parts.network())
    with pytest.raises(sqakd.SqakdError, match="was made for another network: it lacks"):
        sqakd.load(tmp_path / "mine.pt", sqakd.quantize(library_parts.network()))
    shutil.copytree(RUN, tmp_path / "run")
    (tmp_path / "run" / "record.json").unlink()
    with pytest.raises(sqakd.SqakdError, match="is not finished"):
        sqakd.load(tmp_path / "run")


def test_a_file_that_is_not_there_is_refused_beside_a_run() -> None:
    with pytest.raises(sqakd.SqakdError, match=r"no checkpoint at .*typo\.pt"):
        sqakd.load(RUN / "typo.pt")


def test_a_file_of_an_earlier_version_that_lies_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(sqakd.SqakdError, match=r"it lacks image_shape\): expected a file that a run"):
        sqakd.load(shutil.copy(RUN / "weights.pt", tmp_path))


def test_a_file_whose_facts_name_foreign_classes_is_refused(tmp_path: Path) -> None:
    network = library_parts.network()
    model = {"net": {"_target_": "os.system", "command": "true"}, "first": None}
    facts = {"model": model, "quantizer": None, "num_classes": 2, "image_shape": [3, 8, 8]}
    save_safetensors(tmp_path / "weights.safetensors", network, facts)
    with pytest.raises(sqakd.SqakdError, match=r"model\.net\._target_ is 'os\.system'"):
        sqakd.load(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_shape", 5),
        ("image_shape", ["a", 1, 2]),
        ("model", "x"),
        ("model", {}),
        ("quantizer", 3),
        ("num_classes", "ten"),
    ],
)
def test_facts_of_wrong_types_are_refused_in_one_line(key: str, value: object, tmp_path: Path) -> None:
    right: dict[str, Any] = {"model": {"net": {}, "first": None}, "quantizer": None, "num_classes": 2}
    facts = right | {"image_shape": [3, 8, 8]}
    save_safetensors(tmp_path / "weights.safetensors", library_parts.network(), facts | {key: value})
    with pytest.raises(sqakd.SqakdError, match=f"has a wrong description of its network: {key} is "):
        sqakd.load(tmp_path / "weights.safetensors")


def test_the_choice_among_several_weights_is_said(tmp_path: Path) -> None:
    network = library_parts.network()
    torch.save(
        {"model": network.state_dict(), "model_ema": library_parts.network(seed=2).state_dict()}, tmp_path / "two.pt"
    )
    with pytest.warns(UserWarning, match="model_ema"):
        sqakd.load(tmp_path / "two.pt", library_parts.network(seed=1))


def run_file(
    folder: Path, *overrides: str, network: nn.Module | None = None, residual_bits: int | None = None, **changes: Any
) -> Path:
    """Write the weights of a student as a run with 3 bits does, and return the file."""
    config = composed("quantizer=lsq", "bits=3", *overrides).config
    student = sqakd.quantize(network or library_parts.network(), "lsq", bits=3, residual_bits=residual_bits)
    sqakd.calibrate(student, library_parts.images())
    facts = {"model": {"net": {"_target_": "mine.Net"}, "first": None}, "quantizer": config["quantizer"]}
    facts |= {"num_classes": library_parts.CLASSES, "image_shape": list(library_parts.SHAPE)}
    save_safetensors(folder / "weights.safetensors", student, facts | changes)
    return folder / "weights.safetensors"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bits": 2}, "layer 3 has 3-bit LearnedStep weights and 3-bit LearnedStep inputs there and 2-bit LearnedStep"),
        ({"w_bits": 3, "a_bits": 4}, "and 3-bit LearnedStep weights and 4-bit LearnedStep inputs in the given network"),
        ({"bits": 3, "layer_w_bits": {"3": 4}}, "and 4-bit LearnedStep weights and 3-bit LearnedStep inputs in"),
        ({"quantizer": "lsq_pow2", "bits": 3}, "and 3-bit power-of-two LearnedStep weights"),
    ],
)
def test_a_run_s_weights_are_refused_by_a_network_of_another_quantization(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    network = sqakd.quantize(library_parts.network(), **given)
    with pytest.raises(sqakd.SqakdError, match=re.escape(message)):
        sqakd.load(run_file(tmp_path), network)


def test_a_run_s_weights_are_refused_by_a_network_with_other_bits_of_residual_sums(tmp_path: Path) -> None:
    network = CifarResNet(blocks=1, num_classes=library_parts.CLASSES)
    file = run_file(tmp_path, "residual_bits=8", network=network, residual_bits=8)
    sqakd.load(file, sqakd.quantize(network, "lsq", bits=3, residual_bits=8))
    with pytest.raises(sqakd.SqakdError, match=r"the sum layer1\.0\.sum has 8-bit .* and 6-bit "):
        sqakd.load(file, sqakd.quantize(network, "lsq", bits=3, residual_bits=6))


def test_a_layer_s_own_bits_in_a_run_are_those_that_the_network_needs(tmp_path: Path) -> None:
    file = run_file(tmp_path, "layer_bits={3: 4}")
    with pytest.raises(sqakd.SqakdError, match="layer 3 has 4-bit LearnedStep weights"):
        sqakd.load(file, sqakd.quantize(library_parts.network(), bits=3))
    sqakd.load(file, sqakd.quantize(library_parts.network(), bits=3, layer_bits={"3": 4}))


@pytest.mark.parametrize(
    "quantizer", [None, {"_target_": "mine.Scheme", "bits": 8}], ids=["without a description", "own class"]
)
def test_weights_whose_quantization_is_not_known_are_loaded(quantizer: object, tmp_path: Path) -> None:
    sqakd.load(run_file(tmp_path, quantizer=quantizer), sqakd.quantize(library_parts.network(), bits=3))


def test_a_run_s_weights_are_loaded_into_a_network_of_its_quantization(tmp_path: Path) -> None:
    file = run_file(tmp_path)
    loaded = sqakd.load(file, sqakd.quantize(library_parts.network(seed=1), "lsq", bits=3))
    assert all(torch.equal(tensor, load_weights(file)[0][name]) for name, tensor in loaded.state_dict().items())


def test_a_description_without_a_key_that_was_added_later_is_read(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net = {"_target_": "sqakd.models.timm.timm_network", "arch": "test_resnet", "weights": None}
    facts = {"model": {"net": net, "first": None}, "quantizer": None, "num_classes": 2, "image_shape": [3, 32, 32]}
    save_safetensors(tmp_path / "mine.safetensors", timm.create_model("test_resnet", num_classes=2), facts)
    assert sqakd.load(tmp_path / "mine.safetensors")(torch.zeros(1, 3, 32, 32)).shape == (1, 2)

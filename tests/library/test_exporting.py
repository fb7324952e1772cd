"""`export` and `predict` on a network in memory."""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import library_parts
import numpy as np
import onnx
import onnxruntime
import pytest
import small
import torch
from export_networks import TwoBlocks
from PIL import Image
from torch import Tensor, nn
from written_once import written_once

import sqakd
from sqakd.advice import explain
from sqakd.quantization.layers import layer_bits, quant_layers

NAMES = ["ant", "bee", "cat", "dog", "eel"]
NORMALISED: dict[str, Any] = {"mean": 0.5, "std": 0.25}


@pytest.fixture(scope="module", autouse=True)
def shared_models() -> Iterator[None]:
    with written_once():
        yield


def student(network: nn.Module | None = None) -> nn.Module:
    made = sqakd.quantize(library_parts.network().eval() if network is None else network, "lsq", bits=2)
    sqakd.calibrate(made, library_parts.images())
    return made.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module, Any]:
    folder, network = tmp_path_factory.mktemp("export") / "made", student()
    batches = [(images, torch.zeros(8, dtype=torch.int64)) for images in library_parts.batches()]
    own: dict[str, Any] = {"class_names": NAMES, "mean": [0.5] * 3, "std": [0.25] * 3, "name": "insects"}
    return folder, network, sqakd.export(network, library_parts.images(), folder, images=batches, **own)


def test_the_file_computes_what_the_network_computes(exported: tuple[Path, nn.Module, Any]) -> None:
    folder, network, record = exported
    images = library_parts.images(5, seed=9)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": images.numpy()})
    assert np.allclose(logits, network(images).detach().numpy(), atol=1e-5)
    assert all(verdict.images == 24 and verdict.agreement == 1 for verdict in record.verify)
    assert record.verify[0].top1 == record.verify[0].trained_top1
    assert (record.name, record.w_bits, record.a_bits) == ("insects", 2, 2)


def test_predict_reads_any_image_with_the_network_s_normalisation(
    exported: tuple[Path, nn.Module, Any], tmp_path: Path
) -> None:
    folder, network, _ = exported
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    readable, damaged = sqakd.predict(folder, tmp_path)
    images = (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25
    wanted = network(images).softmax(dim=1)[0].detach()
    assert readable.label == NAMES[int(wanted.argmax())]
    assert np.allclose(readable.probabilities, wanted.numpy(), atol=1e-5)
    assert readable.probability == max(readable.probabilities)
    assert (damaged.file.name, damaged.label) == ("b.png", None)
    assert damaged.problem


def test_a_map_of_classes_can_be_exported(tmp_path: Path) -> None:
    network = nn.Sequential(*(nn.Conv2d(3 if not i else 4, 4, 3, padding=1) for i in range(3)))
    example, compared = library_parts.images(2), library_parts.batches(1)
    record = sqakd.export(student(network), example, tmp_path / "made", images=compared, **NORMALISED)
    assert all(verdict.agreement == 1 for verdict in record.verify)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = library_parts.network()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.network(images)}


def nested() -> nn.Module:
    made = sqakd.quantize(Nested())
    sqakd.calibrate(made, library_parts.images())
    return made


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (library_parts.network, {}, "the network has no quantized layer"),
        (lambda: sqakd.quantize(library_parts.network()), {}, "the network is not calibrated"),
        (nested, {}, "the network returns dict for images of shape [8, 3, 8, 8]; expected one tensor"),
        (student, {"example": library_parts.images()[:, :2]}, "cannot take images of shape [8, 2, 8, 8]"),
        (student, {"images": []}, "the images end before the first batch"),
        (student, {"images": [library_parts.images()[..., :7]]}, "[3, 8, 7] follow images of shape [3, 8, 8]"),
        (student, {"images": [library_parts.images() / 0]}, "values that are NaN or infinite"),
        (student, {"mean": [0.5]}, "mean=[0.5]: expected 3 numbers from 0 to 1, one per channel"),
        (student, {"class_names": ["a", "b"]}, "class_names=['a', 'b']: expected 5 texts, one for each output"),
        (student, {"class_names": "abcde"}, "class_names='abcde': expected 5 texts"),
        (student, {"mean": 128}, "mean=128: expected 3 numbers"),
        (student, {"mean": "0.5"}, "mean='0.5': expected 3 numbers"),
        (lambda: "student", {}, "found str; expected a network"),
        (student, {"profile": "tiny"}, "profile='tiny': expected exact, requantized, int8, trt"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    make: Any, arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    example = arguments.pop("example", library_parts.images())
    with pytest.raises(sqakd.SqakdError, match=re.escape(message)):
        sqakd.export(make(), example, tmp_path / "made", **NORMALISED | arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_model_is_a_library_error(tmp_path: Path) -> None:
    with pytest.raises(sqakd.SqakdError, match=r"no file .*model\.onnx"):
        sqakd.predict(tmp_path, "image.png")


def test_a_network_with_one_channel_needs_no_statistics(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5))
    made, images = sqakd.quantize(network, "lsq", bits=2), library_parts.images()[:, :1]
    sqakd.calibrate(made, images)
    names = list("abcde")
    record = sqakd.export(
        made, images, tmp_path / "made", class_names=names, mean=torch.tensor([0.25]), std=np.array([0.5])
    )
    assert record.verify[0].agreement == 1
    grey = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    (found,) = sqakd.predict(tmp_path / "made", tmp_path / "grey.png")
    with torch.no_grad():
        logits = made.eval()((torch.from_numpy(grey)[None, None] / 255 - 0.25) / 0.5)
    assert found.probabilities == pytest.approx(logits.softmax(dim=1)[0].tolist(), abs=1e-5)


def test_a_folder_of_other_files_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lowers(*_: object) -> None:
        raise AssertionError("converted")

    monkeypatch.setattr("sqakd.export.pipeline.integer_content", lowers)
    (tmp_path / "photo.png").touch()
    with pytest.raises(sqakd.SqakdError, match=re.escape(str(tmp_path))):
        sqakd.export(student(), library_parts.images(), tmp_path, **NORMALISED)


def test_a_full_disk_is_reported_with_the_space_that_the_export_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sqakd.export.pipeline.np.savez_compressed", fail)
    with pytest.raises(sqakd.SqakdError, match=r"No space left on device \(\d+\.\d kB needed, .* free\)") as full:
        sqakd.export(student(), library_parts.images(), tmp_path / "made", **NORMALISED)
    assert explain(full.value).endswith("; make room there and repeat the same command")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "statistics", [{"mean": [0.5]}, {"mean": [float("nan")] * 3}, {"mean": [128.0] * 3}, {"std": [0.0] * 3}]
)
def test_statistics_that_no_image_has_are_refused(statistics: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(sqakd.SqakdError, match=r"expected 3 numbers from .* to 1, one per channel"):
        sqakd.export(student(), library_parts.images(), tmp_path / "made", **statistics)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("example", "compared"), [(True, False), (False, True)], ids=["the example", "the compared images"]
)
def test_a_warning_is_given_for_normalised_images_without_their_statistics(
    example: bool, compared: bool, tmp_path: Path
) -> None:
    scaled, normalised = library_parts.images().clamp(0, 1), library_parts.images().clamp(-2, 2)
    given = normalised if example else scaled
    with pytest.warns(UserWarning, match=r"the images reach from -2 to 2, .* mean= and std= .* are missing") as warned:
        sqakd.export(student(), given, tmp_path / "made", images=[scaled, normalised if compared else scaled])
    assert {warning.filename for warning in warned if "the images" in str(warning.message)} == {__file__}


@pytest.mark.parametrize(
    ("example", "statistics"),
    [(library_parts.images().clamp(0, 1), {}), (library_parts.images(), {"mean": 0.0, "std": 1.0})],
    ids=["pixels without statistics", "a network with inputs of its own"],
)
def test_images_without_a_normalisation_are_exported(
    example: Tensor, statistics: dict[str, Any], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the images reach")
        assert sqakd.export(student(), example, tmp_path / "made", **statistics).verify[0].agreement == 1


@pytest.mark.parametrize("batch", [0, -1, 1.5])
def test_the_size_of_a_batch_is_checked(batch: Any) -> None:
    with pytest.raises(sqakd.SqakdError, match=f"batch={batch}: expected a whole number"):
        sqakd.predict("nowhere.onnx", "photo.png", batch=batch)


def test_layers_of_different_bits_are_packed_at_their_own_and_computed_exactly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = sqakd.quantize(TwoBlocks().eval(), "lsq", layer_bits={"layer1.*": 3, "layer2.conv1": 1, "conv1": 4})
    sqakd.calibrate(network, small.batch(32))
    compared = [small.batch(64, 1)]
    record = sqakd.export(network.eval(), small.batch(16), tmp_path / "made", images=compared, **NORMALISED)
    assert [verdict.agreement for verdict in record.verify] == [1.0] * len(record.verify)
    layers = {layer["name"]: (layer["w_bits"], layer["a_bits"]) for layer in record.layers}
    assert layers == layer_bits(network)
    assert set(layers.values()) == {(4, 4), (3, 3), (2, 2), (1, 1)}
    assert (record.w_bits, record.a_bits) == (None, None), "the layers differ"
    report = (tmp_path / "made" / "report.md").read_text()
    assert all(f"| {w}/{a} |" in report for w, a in layers.values())
    initializers = onnx.load(tmp_path / "made" / "model.onnx").graph.initializer
    packed = sum(len(part.raw_data) for part in initializers if part.name.endswith(".packed"))
    stored = {1: 1, 2: 2, 3: 4, 4: 4}  # bits of one weight in the file
    weights = [(layer.weight.numel(), layer.weight_quantizer.bits) for _, layer in quant_layers(network)]
    assert packed == sum(count * stored[bits] // 8 for count, bits in weights)

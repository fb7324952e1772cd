"""Residual sums that were trained on integers: the integer network, both runtimes, QONNX, and what is refused."""

from __future__ import annotations

import copy
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import small
import torch
from export_networks import images_for, make, two_blocks
from onnx_files import run
from torch import Tensor, fx, nn

from sqakd.advice import explain
from sqakd.export.artefacts import describe_sums
from sqakd.export.compare import Differences, code_differences, recorded
from sqakd.export.eight_bit import quantize_float_parts
from sqakd.export.errors import ExportError
from sqakd.export.graph import module_of
from sqakd.export.levels import CountedOutput, LevelOutput
from sqakd.export.lower import Lowering, lower
from sqakd.export.modules import Dequantize, IntegerSum, Quantize, RealOutput
from sqakd.export.probe import recorded_in_onnxruntime
from sqakd.export.qonnx.execute import executed
from sqakd.export.qonnx.lower import lower_to_qonnx
from sqakd.export.qonnx.model import qonnx_model
from sqakd.export.to_onnx import Deployed, to_onnx
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.quantization.residual import residual_sums
from sqakd.sums import ResidualSum

SLOW = pytest.mark.slow
BITS = "residual_bits=8"


@cache
def resnet(name: str, method: str, bits: int) -> nn.Module:
    return make(name, f"quantizer={method}", BITS, bits=bits)


@cache
def requantized_resnet8() -> fx.GraphModule:
    """Return a residual network of three blocks whose sums are requantized, never counted."""
    return lower(resnet("resnet8", "lsq", 2), Lowering(count=False))


@cache
def small_network(*overrides: str) -> nn.Module:
    return two_blocks("quantizer=lsq", BITS, *overrides)


def total(differences: dict[str, Differences]) -> Differences:
    return sum(differences.values(), Differences())


@pytest.mark.parametrize(
    ("name", "method", "bits"),
    [
        ("resnet8", "lsq", 2),
        *(
            pytest.param("resnet20", *case, marks=SLOW)
            for case in (("lsq", 2), ("ewgs", 1), ("pact", 3), ("dorefa", 2), ("lsq", 7))
        ),
    ],
)
@torch.no_grad()
def test_each_code_that_onnxruntime_computes_is_the_trained_one(name: str, method: str, bits: int) -> None:
    network, x = resnet(name, method, bits), images_for(name, 4)
    lowered = lower(network, Lowering())
    model = to_onnx(Deployed(lowered, None, None), (3, 16, 16), weights="cast")
    differences, logits = code_differences(network, x, recorded_in_onnxruntime(model, lowered, x))
    assert total(differences).codes > 10_000
    # Only the real values behind the first layer, which is float, may round differently.
    assert total(differences).differing <= 1
    assert logits < 1e-5 or total(differences).differing


@torch.no_grad()
def test_everything_between_the_outer_layers_is_integer() -> None:
    lowered = requantized_resnet8()
    convolutions = [m for m in lowered.modules() if isinstance(m, LevelOutput | RealOutput)]
    assert len(convolutions) == 6
    assert all(isinstance(m, LevelOutput) for m in convolutions)
    assert sum(isinstance(m, IntegerSum) for m in lowered.modules()) == 3
    for node in lowered.graph.nodes:
        if isinstance(module_of(node), Dequantize):  # read by quantizers of fewer bits, and by the pooling at the end
            assert all(isinstance(module_of(user), Quantize) or user.target == "mean" for user in node.users)
        if isinstance(module_of(node), Quantize) and str(node.target).endswith("_shortcut"):
            assert str(node.target).startswith("layer1.0.")  # the other shortcuts are sums already


@pytest.mark.parametrize("signed", [False, True])
@torch.no_grad()
def test_the_formulas_of_a_described_sum_give_the_trained_sum(signed: bool) -> None:
    network = copy.deepcopy(small_network())
    name, total = residual_sums(network)[0]
    total.signed_shortcut = signed
    described = describe_sums(network)[0]
    assert described["name"] == name
    step = described["step"]
    operands = 400 * step * torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))

    def codes(x: Tensor, found: dict[str, Any]) -> Tensor:
        level: Tensor = (((x - found["origin"]) / found["step"]).round() + found["shift"]).clamp(0, found["levels"])
        integers: Tensor = level * found["gap"] - found["zero_point"]
        return integers

    pairs = zip(operands, (described["branch"], described["shortcut"]), strict=True)
    sums = sum(codes(x, found) for x, found in pairs).clamp(described["lowest"], described["highest"])  # type: ignore[union-attr]
    assert {0, 2 * 127 if signed else 255} < set(sums.tolist())  # both ends are reached
    torch.testing.assert_close(step * sums, total(*operands), rtol=1e-6, atol=0)


@torch.no_grad()
def test_a_branch_that_cannot_be_requantized_has_a_real_output_and_is_rounded_apart() -> None:
    network, x = small_network("bits=3"), small.batch(8)
    lowered = lower(network, Lowering())
    real = [m.name for m in lowered.modules() if isinstance(m, RealOutput)]
    assert real == ["layer1.conv2", "layer2.conv2"]
    assert not any(isinstance(m, CountedOutput) for m in lowered.modules())
    model = to_onnx(Deployed(lowered, None, None), small.SHAPE, weights="cast")
    # ONNX Runtime would join these convolutions with the rounding, and change codes, if nothing stood in between.
    assert Counter(node.op_type for node in model.graph.node)["Max"] == 2
    assert np.abs(run(model, x) - lowered(x).numpy()).max() < 1e-4


@torch.no_grad()
def test_few_requantized_sums_are_one_level_off() -> None:
    network, x = resnet("resnet8", "lsq", 2), images_for("resnet8", 8)
    lowered = requantized_resnet8()
    assert not any(isinstance(m, CountedOutput) for m in lowered.modules())
    branches = [m for m in lowered.modules() if isinstance(m, LevelOutput) and m.next.input.levels == 255]
    assert len(branches) == 3
    assert sum(m.wrong_sums for m in branches) < 0.02 * sum(int(m.solution.reachable.sum()) for m in branches)
    differences, _ = code_differences(network, x, recorded(lowered, x))
    assert 0 < total(differences).differing < 1e-3 * total(differences).codes
    assert total(differences).farthest < 0.1  # less than one of 256 levels of the sums, in steps of two bits


@torch.no_grad()
def test_a_network_with_outer_layers_of_8_bits_has_only_integer_kernels(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    network, x = small_network("quantizer.first_last=8"), small.batch(8)
    lowered = lower(network, Lowering(count=False))
    quantize_float_parts(lowered, x)
    model = to_onnx(Deployed(lowered, None, None), small.SHAPE, weights="dequantize")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    # The first convolution is computed for both of its readers, the first block and its shortcut.
    assert (kinds["QLinearConv"], kinds["QLinearAdd"], kinds["Conv"], kinds["Add"]) == (6, 2, 0, 0)
    assert kinds["Transpose"] <= 3  # at the ends, not around each convolution


@pytest.mark.parametrize("count", [True, False])
@torch.no_grad()
def test_a_layer_that_is_computed_for_two_readers_is_compared(count: bool) -> None:
    network, x = small_network("quantizer.first_last=8"), small.batch(8)
    lowered = lower(network, Lowering(count=count))
    model = to_onnx(Deployed(lowered, None, None), small.SHAPE, weights="cast")
    # The exporter merges the equal weights of both copies of the first layer.
    got = recorded_in_onnxruntime(model, lowered, x)
    differences, _ = code_differences(network, x, got)
    assert got.stored.keys() == differences.keys()
    assert total(differences).differing <= (1 if count else 1e-3 * total(differences).codes)


class Between(nn.Module):
    """A block with something between its convolution and the sum."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.first, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.between, self.sum, self.last = between, ResidualSum(), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        branch, shortcut = self.between(self.conv(x)), self.between(x)
        y: Tensor = self.last(self.sum(branch, shortcut).mean(dim=(2, 3)))
        return y


class Sliced(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2, ::2]


@pytest.mark.parametrize("between", [nn.Identity(), pytest.param(Sliced(), marks=SLOW), nn.MaxPool2d(2), nn.ReLU()])
@torch.no_grad()
def test_onnxruntime_joins_no_convolution_with_its_rounding(between: nn.Module) -> None:
    torch.manual_seed(0)
    network, x = Between(between), small.batch(64)
    quantize(network, small.scheme("quantizer=lsq", "bits=4", BITS))
    calibrate(network, x)
    lowered = lower(network.eval(), Lowering())
    assert not any(isinstance(m, CountedOutput) for m in lowered.modules())
    model = to_onnx(Deployed(lowered, None, None), small.SHAPE, weights="cast")
    assert np.abs(run(model, x) - lowered(x).numpy()).max() < 1e-4


@pytest.mark.parametrize(
    ("overrides", "count"), [([], False), (["quantizer.first_last=8"], False), (["quantizer.first_last=8"], True)]
)
@torch.no_grad()
def test_openvino_and_onnxruntime_compute_the_same_logits(overrides: list[str], count: bool, tmp_path: Path) -> None:
    """With 8 bits, the first convolution is there for both of its readers, the first block and its shortcut."""
    openvino = pytest.importorskip("openvino")
    lowered, x = lower(small_network(*overrides), Lowering(count=count)), small.batch(16)
    model = to_onnx(Deployed(lowered, None, None), small.SHAPE, weights="dequantize")
    onnx.save(model, tmp_path / "model.onnx")
    compiled = openvino.Core().compile_model(tmp_path / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got, wanted = compiled(x.numpy())[0], run(model, x)
    # Nothing between the outer layers depends on the order of additions, so equal codes give equal logits.
    assert np.abs(got - wanted).max() < 1e-4 * wanted.std()


@pytest.mark.parametrize("thresholds", [False, pytest.param(True, marks=SLOW)])
def test_each_code_that_qonnx_computes_is_the_trained_one(thresholds: bool) -> None:
    pytest.importorskip("qonnx")
    network, x = small_network(), small.batch(3)
    lowered = lower_to_qonnx(network, thresholds=thresholds)
    model = qonnx_model(lowered, small.SHAPE)
    differences, logits = code_differences(network, x, executed(model, lowered, x))
    assert total(differences).codes > 1_000
    assert total(differences).differing == 0
    assert logits < 1e-5
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Add"] == 2
    if thresholds:  # each sum adds whole codes
        adds = [node for node in model.graph.node if node.op_type == "Add"]
        producers = {name: node.op_type for node in model.graph.node for name in node.output}
        assert {producers[name] for node in adds for name in node.input} <= {"MultiThreshold", "Pad"}


@pytest.mark.slow
@torch.no_grad()
def test_a_residual_network_of_torchvision_computes_the_same() -> None:
    network, x = make("resnet18", "quantizer=lsq", BITS, bits=4), images_for("resnet18", 4)
    lowered = lower(network, Lowering())
    assert sum(isinstance(m, IntegerSum) for m in lowered.modules()) == 8
    model = to_onnx(Deployed(lowered, None, None), (3, 48, 48), weights="cast")
    differences, _ = code_differences(network, x, recorded_in_onnxruntime(model, lowered, x))
    assert total(differences).differing <= 5e-6 * total(differences).codes + 1


class SignedShortcut(nn.Module):
    """A block whose shortcut is a convolution, as where torchvision's residual networks shrink their maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.branch, self.shortcut = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
        self.norm, self.sum, self.last = nn.BatchNorm2d(4), ResidualSum(), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        total: Tensor = self.sum(branch=self.branch(x), shortcut=self.norm(self.shortcut(x)))
        y: Tensor = self.last(total.mean(dim=(2, 3)))
        return y


@torch.no_grad()
def test_both_operands_may_be_layers_and_have_signed_codes() -> None:
    torch.manual_seed(0)
    network, x = SignedShortcut(), small.batch(8)
    quantize(network, small.scheme("quantizer=lsq", "bits=3", BITS))
    calibrate(network, x)
    lowered = lower(network.eval(), Lowering())
    assert sum(isinstance(m, LevelOutput) and m.next.input.zero_point == 128 for m in lowered.modules()) == 2
    differences, logits = code_differences(network, x, recorded(lowered, x))
    assert total(differences).differing == 0
    assert logits < 1e-5


class Bottlenecks(nn.Module):
    """Two linear bottlenecks, as in MobileNet-V2: their sums have no ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.expansions = nn.ModuleList(nn.Conv2d(6, 12, 1) for _ in range(2))
        self.projections = nn.ModuleList(nn.Conv2d(12, 6, 3, padding=1) for _ in range(2))
        self.sums = nn.ModuleList(ResidualSum(relu=False) for _ in range(2))
        self.last = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for expand, project, total in zip(self.expansions, self.projections, self.sums, strict=True):
            x = total(project(expand(x).relu()), x)
        y: Tensor = self.last(x.mean(dim=(2, 3)))
        return y


def bottlenecks(*overrides: str) -> nn.Module:
    torch.manual_seed(0)
    network = Bottlenecks()
    quantize(network, small.scheme("quantizer=lsq", "bits=3", *overrides))
    calibrate(network, small.batch(8))
    return network.eval()


@pytest.mark.parametrize("form", ["onnx", "quant", "multi_threshold"])
@torch.no_grad()
def test_sums_without_a_relu_have_the_trained_signed_codes(form: str) -> None:
    network, x = bottlenecks(BITS), small.batch(8)
    assert [(found["lowest"], found["highest"]) for found in describe_sums(network)] == [(-128, 127)] * 2
    if form == "onnx":
        lowered = lower(network, Lowering())
        assert sum(isinstance(module_of(node), IntegerSum) for node in lowered.graph.nodes) == 2
        got = recorded_in_onnxruntime(to_onnx(Deployed(lowered, None, None), small.SHAPE, weights="cast"), lowered, x)
    else:
        pytest.importorskip("qonnx")
        lowered = lower_to_qonnx(network, thresholds=form == "multi_threshold")
        got = executed(qonnx_model(lowered, small.SHAPE), lowered, x)
    differences, logits = code_differences(network, x, got)
    assert total(differences).codes > 10_000
    assert total(differences).differing == 0
    assert logits < 1e-5


def test_tensorrt_takes_signed_sums_of_8_bits() -> None:
    network, x = bottlenecks(BITS), small.batch(32)
    with torch.no_grad():
        lowered = lower(network, Lowering(signed=True, count=False))
        model = to_onnx(Deployed(lowered, None, None), small.SHAPE, weights="dequantize")
        # On processors without VNNI, most images had other logits while weights of 3 bits filled int8.
        assert np.abs(run(model, x) - lowered(x).numpy()).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sums", "share"), [("mobilenet_v2", 10, 5e-6), ("efficientnet_b0", 9, 1e-3)])
@torch.no_grad()
def test_other_networks_of_torchvision_compute_the_same(name: str, sums: int, share: float) -> None:
    """EfficientNet's SiLU and attention are real, and a code of a rounded sum that differs changes those behind it."""
    network, x = make(name, "quantizer=lsq", BITS, bits=4), images_for(name, 4)
    lowered = lower(network, Lowering())
    assert sum(isinstance(m, IntegerSum) for m in lowered.modules()) == sums
    model = to_onnx(Deployed(lowered, None, None), (3, 48, 48), weights="cast")
    differences, _ = code_differences(network, x, recorded_in_onnxruntime(model, lowered, x))
    assert total(differences).differing <= share * total(differences).codes + 1


class OneSum(nn.Module):
    """Two blocks that call the same module for their sums."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.sum, self.last = nn.Conv2d(3, 8, 3, padding=1), ResidualSum(), nn.Linear(8, 10)
        self.blocks = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for block in self.blocks:
            x = self.sum(block(x), x)
        y: Tensor = self.last(x.mean(dim=(2, 3)))
        return y


@pytest.mark.parametrize("form", ["onnx", "qonnx"])
@torch.no_grad()
def test_blocks_may_share_one_module_for_their_sums(form: str) -> None:
    if form == "qonnx":
        pytest.importorskip("qonnx")
    torch.manual_seed(0)
    network, x = OneSum(), small.batch(3)
    quantize(network, small.scheme("quantizer=lsq", "bits=3", BITS))
    calibrate(network, x)
    network.eval()
    assert [found["name"] for found in describe_sums(network)] == ["sum"]
    if form == "qonnx":
        lowered = lower_to_qonnx(network, thresholds=True)
        got = executed(qonnx_model(lowered, small.SHAPE), lowered, x)
    else:
        lowered = lower(network, Lowering())
        assert sum(isinstance(module_of(node), IntegerSum) for node in lowered.graph.nodes) == 2
        got = recorded_in_onnxruntime(to_onnx(Deployed(lowered, None, None), small.SHAPE, weights="cast"), lowered, x)
    differences, logits = code_differences(network, x, got)
    assert total(differences).codes > 1_000
    assert total(differences).differing == 0
    assert logits < 1e-5


def test_tensorrt_needs_7_bits() -> None:
    signed = Lowering(signed=True, count=False)
    with pytest.raises(ExportError, match=r"layer layer1\.sum: the input codes 0 \.\. 255 do not fit int8") as error:
        lower(small_network(), signed)
    assert "residual_bits=7" in explain(error.value)
    network, x = two_blocks("quantizer=lsq", "residual_bits=7"), small.batch(8)
    with torch.no_grad():
        lowered = lower(network, signed)
        model = to_onnx(Deployed(lowered, None, None), small.SHAPE, weights="dequantize")
        assert np.abs(run(model, x) - lowered(x).numpy()).max() < 1e-4

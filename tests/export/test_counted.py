"""Counted stairs: levels of exact sums, and networks whose files round every value as the trained network does."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import small
import torch
from export_networks import images_for, make
from onnx_files import session
from torch import Tensor, fx, nn

from sqakd.export.compare import Differences, Recorded, _differences, code_differences
from sqakd.export.counted import LARGEST_SUM, counted, parts_of_sums
from sqakd.export.errors import ExportError
from sqakd.export.geometry import Geometry
from sqakd.export.graph import calls
from sqakd.export.integer_input import IntegerInput
from sqakd.export.integer_weight import IntegerWeight
from sqakd.export.levels import CountedOutput, IntegerOutput, LevelOutput
from sqakd.export.lower import Lowering, lower
from sqakd.export.modules import IntegerLayer, integer_layers
from sqakd.export.ops import count
from sqakd.export.probe import probed, recorded_in_onnxruntime, recorded_outputs
from sqakd.export.requantization import solve_requantization
from sqakd.export.staircase import reference_stairs, within
from sqakd.export.stored import StoredInput
from sqakd.export.to_onnx import Deployed, to_onnx
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize

SLOW = pytest.mark.slow
TIE = 1e-5  # steps; float32 adds values of up to 127 steps with errors of about this size


def grid(bits: int, *, origin: float = 0.13, step: float = 0.3, gap: int = 1) -> IntegerInput:
    return IntegerInput(
        bits=bits, origin=origin, step=step, shift=0, levels=2**bits - 1, gap=gap, zero_point=0, scale=0.25
    )


def layer(bits: int, channels: int = 6, inputs: int = 8, seed: int = 0) -> dict[str, Any]:
    """Return a layer with weights of all sizes, and scales of both signs that make its outputs use all levels."""
    generator = torch.Generator().manual_seed(seed)
    integers = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (channels, inputs, 3, 3), generator=generator)
    deviation = (integers.double().square().sum(dim=(1, 2, 3)) * (2**bits - 1) ** 2 / 3).sqrt()
    scale = 2**bits * 0.1 / deviation * torch.where(torch.arange(channels) % 2 == 0, 1, -1)
    return {
        "name": "made",
        "weight": IntegerWeight(
            bits=bits, integers=integers.to(torch.int16), scale=scale, grid=torch.arange(-128, 128)
        ),
        "stored": StoredInput(input=grid(bits), signed=False),
        "scale": scale,
        "offset": torch.randn(channels, generator=generator, dtype=torch.float64),
        "geometry": Geometry(stride=(1, 1), pads=(1, 1, 1, 1), dilation=(1, 1), groups=1),
    }


@cache
def trained(name: str, method: str, bits: int) -> nn.Module:
    return make(name, f"quantizer={method}", bits=bits)


@cache
def written(name: str, method: str, bits: int) -> tuple[nn.Module, fx.GraphModule, onnx.ModelProto]:
    """Return a network, its integer twin and its model, which is the same for all runtimes."""
    network, image_shape = trained(name, method, bits), tuple(images_for(name, 1).shape[1:])
    lowered = lower(network, Lowering())
    return network, lowered, to_onnx(Deployed(lowered, None, None), image_shape, weights="cast")  # type: ignore[arg-type]


def between(arguments: dict[str, Any], output: IntegerInput, form: type[LevelOutput], low: int = 0) -> LevelOutput:
    weight, stored = arguments["weight"], arguments["stored"]
    assert isinstance(weight, IntegerWeight)
    assert isinstance(stored, StoredInput)
    solution = solve_requantization(
        weight.integers, scale=arguments["scale"], offset=arguments["offset"], input=stored.input, output=output,
        low=low, high=output.levels,
    )  # fmt: skip
    next = StoredInput(input=output, signed=False)
    return form(solution=solution, next=next, low=low, high=output.levels, **arguments)


def wanted_codes(made: LevelOutput, x: Tensor) -> Tensor:
    """Return the next layer's stored integers, computed in float64 from the definition."""
    integers = made.integer_weight.integers.double()
    acc = nn.functional.conv2d(x.double(), integers, padding=1)
    y = acc * made.scale[:, None, None] + made.offset[:, None, None]
    return (made.next.input.gap * made.next.input.level(y).clamp(made.low, made.high)).to(torch.uint8)


@pytest.mark.parametrize(
    ("gap", "low", "bits"),
    [
        *((1, 0, 2), (1, 1, 8), (2, 0, 8), (2, 1, 5)),
        *(pytest.param(*case, marks=SLOW) for case in ((1, 0, 5), (1, 0, 8), (1, 1, 2), (1, 1, 5))),
        *(pytest.param(*case, marks=SLOW) for case in ((2, 0, 2), (2, 0, 5), (2, 1, 8))),
    ],
)
def test_counted_levels_equal_the_reference_in_torch_and_in_onnx_runtime(gap: int, low: int, bits: int) -> None:
    output = grid(bits - (gap == 2), gap=gap)
    made = between(layer(bits), output, CountedOutput, low)
    assert (made.scale < 0).any()
    assert made.wrong_sums == 0
    x = torch.randint(0, 2**bits, (3, 8, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    wanted = wanted_codes(made, x)
    assert len(torch.unique(wanted)) > output.levels / 3
    with torch.no_grad():
        assert torch.equal(made(x), wanted)
        assert np.array_equal(in_onnx_runtime(made, x), wanted.numpy())


def test_requantization_gets_sums_wrong_that_counting_gets_right() -> None:
    """Without this, the form that the other tests check would not be needed."""
    arguments = layer(8)
    fused = between(arguments, grid(8), IntegerOutput)
    x = torch.randint(0, 256, (64, 8, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert fused.wrong_sums > 0
        assert not torch.equal(fused(x), wanted_codes(fused, x))


def test_sums_beyond_single_precision_are_computed_in_two_parts() -> None:
    arguments = layer(8, channels=4, inputs=600)
    weight = arguments["weight"]
    assert isinstance(weight, IntegerWeight)
    weight.integers.abs_().clamp_(max=127)
    arguments["offset"] = -grid(8).code_range[1] * weight.integers.sum(dim=(1, 2, 3)) * arguments["scale"]
    made = between(arguments, grid(8), CountedOutput)
    assert isinstance(made, CountedOutput)
    assert made.in_two
    x = torch.full((1, 600, 5, 5), 255, dtype=torch.uint8)
    x[:, :, :2] -= torch.randint(0, 3, (1, 600, 2, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    acc = nn.functional.conv2d(x.double(), weight.integers.double(), padding=1)
    assert (acc.abs() > LARGEST_SUM).any()
    with torch.no_grad():
        assert torch.equal(made(x), wanted_codes(made, x))
        assert np.array_equal(in_onnx_runtime(made, x), made(x).numpy())


def test_a_clamp_that_leaves_one_level_needs_neither_form() -> None:
    made = between(layer(2), grid(2), IntegerOutput, low=3)
    x = torch.randint(0, 4, (1, 8, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert made.wrong_sums == 0
        assert (made(x) == 3).all()


def test_single_precision_holds_sums_up_to_its_limit() -> None:
    weight = torch.full((2, 16), 1)
    weight[1] = -64
    assert parts_of_sums(weight, (0, 2**14)) == 1
    assert parts_of_sums(weight, (0, 2**14 + 1)) == 2
    assert parts_of_sums(weight, (-(2**14) - 1, 3)) == 2


def test_a_layer_that_two_parts_cannot_hold_is_requantized() -> None:
    """With weights of 119 = 16 * 7 + 7, both parts of a sum exceed 2**24."""
    weight = torch.full((2, 1120, 3, 3), 119)
    assert parts_of_sums(weight, (0, 255)) == 0
    wide, narrow = nn.Conv2d(1120, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
    with torch.no_grad():
        wide.weight.copy_(torch.randint(100, 128, wide.weight.shape).float() / 127)
    network = nn.Sequential(nn.Conv2d(3, 1120, 1), nn.ReLU(), wide, nn.ReLU(), narrow, nn.Conv2d(4, 4, 1), nn.Flatten())
    x = small.batch(2)
    quantize(network, small.scheme("quantizer=lsq", "bits=8", "quantizer.start=max"))
    calibrate(network, x)
    (middle,) = (m for m in integer_layers(lower(network.eval(), Lowering())) if isinstance(m, LevelOutput))
    assert isinstance(middle, IntegerOutput)
    assert middle.wrong_sums > 0


def test_distance_of_a_differing_code_is_measured_from_the_edges_between_both_codes() -> None:
    input = grid(2, origin=0.0, step=1.0)
    x = torch.tensor([0.4999999, 0.4999999, 2.2], dtype=torch.float64)
    for level, farthest in (([1.0, 0.0, 2.0], 1e-7), ([3.0, 0.0, 2.0], 2.0000001), ([0.0, 0.0, 3.0], 0.3)):
        found = _differences(input, torch.tensor(level), input.level(x), x)
        assert (found.codes, found.differing) == (3, 1)
        assert found.farthest == pytest.approx(farthest)


def test_a_line_that_is_too_far_off_is_refused() -> None:
    """Levels of more than 2**24 times float32's precision per unit: the line would miss the stairs."""
    unit, offset = torch.tensor([1e3], dtype=torch.float64), torch.tensor([-1.2345e9], dtype=torch.float64)
    output = IntegerInput(bits=8, origin=0.0, step=1.0, shift=0, levels=255, gap=1, zero_point=0, scale=1.0)
    reachable = torch.tensor([1_234_000]), torch.tensor([1_235_000])
    stairs = within(reference_stairs(unit, offset, output, torch.arange(1, 256)), *reachable)
    good = counted(stairs, unit=unit, offset=offset, reachable=reachable, output=output, low=0)
    assert int(count(torch.full((1, 1, 1, 1), 1_234_501), good)) == 255
    with pytest.raises(ExportError, match=r"^offsets are too large"):
        counted(stairs, unit=unit, offset=offset * 1.01, reachable=reachable, output=output, low=0)


@pytest.mark.parametrize(("method", "bits", "expected"), [("lsq", 2, False), ("lsq", 7, True), ("ewgs", 7, True)])
def test_layers_count_where_requantization_leaves_wrong_sums(method: str, bits: int, expected: bool) -> None:
    network = trained("vgg8", method, bits)
    forms = [isinstance(m, CountedOutput) for m in integer_layers(lower(network, Lowering())) if is_between(m)]
    assert forms == [expected] * 3
    fused = [m for m in integer_layers(lower(network, Lowering(count=False))) if isinstance(m, LevelOutput)]
    assert all(isinstance(m, IntegerOutput) for m in fused)
    assert (sum(m.wrong_sums for m in fused) > 0) is expected


def test_tensorrt_gets_no_tables() -> None:
    network = trained("vgg8", "lsq", 7)
    assert not any(isinstance(m, CountedOutput) for m in integer_layers(lower(network, Lowering(signed=True))))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("name", "method", "bits"),
    [
        ("resnet8", "ewgs", 4),
        ("vgg8", "lsq", 8),
        ("vgg8", "dorefa", 1),
        pytest.param("resnet20", "ewgs", 4, marks=SLOW),
        pytest.param("resnet20", "dorefa", 1, marks=SLOW),
        pytest.param("resnet20", "ewgs", 7, marks=SLOW),
        pytest.param("resnet20", "lsq", 8, marks=SLOW),
        pytest.param("resnet20", "pact", 6, marks=SLOW),
        pytest.param("mobilenet_v2", "lsq", 4, marks=SLOW),
    ],
)
def test_each_code_in_the_runtimes_is_the_trained_one(runtime: str, name: str, method: str, bits: int) -> None:
    (network, lowered, model), x = written(name, method, bits), images_for(name, 16)
    differences, _ = code_differences(network, x, executed_codes(model, lowered, x, runtime))
    total = sum(differences.values(), Differences())
    assert total.codes > 10_000
    assert total.farthest <= TIE
    assert total.differing <= 5e-6 * total.codes + 1


def is_between(module: IntegerLayer) -> bool:
    return isinstance(module, LevelOutput)


def in_onnx_runtime(made: nn.Module, x: Tensor) -> np.ndarray:
    """Return the output of one layer in ONNX Runtime, with its float input for stored integers."""
    graph = fx.Graph()
    image = graph.placeholder("x")
    stored = graph.call_method("to", (image, torch.uint8))
    graph.output(graph.call_module("made", (stored,)))
    module = fx.GraphModule(nn.ModuleDict({"made": made}), graph)
    proto = to_onnx(Deployed(module, None, None), tuple(x.shape[1:]), weights="cast")  # type: ignore[arg-type]
    result: np.ndarray = session(proto).run(None, {"image": x.float().numpy()})[0]
    return result


def executed_codes(model: onnx.ModelProto, lowered: fx.GraphModule, x: Tensor, runtime: str) -> Recorded:
    """Return the codes and logits as a runtime computes them."""
    if runtime == "onnxruntime":
        return recorded_in_onnxruntime(model, lowered, x)
    openvino = pytest.importorskip("openvino")
    layers = {str(node.target): m for node, m in calls(lowered.graph, IntegerLayer) if isinstance(m, IntegerLayer)}
    probe, outputs = probed(model, layers)
    network = openvino.Core().read_model(probe.SerializeToString())
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"image": x.numpy()})
    results = {value.name: np.array(found[compiled.output(value.name)]) for value in probe.graph.output}
    return recorded_outputs(layers, outputs, results)

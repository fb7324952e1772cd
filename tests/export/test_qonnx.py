"""The QONNX form of a network, executed by the `qonnx` package, and what it refuses."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import small
import torch
from export_networks import chain, images_for, make
from onnx import numpy_helper
from torch import Tensor, fx, nn

from sqakd.advice import explain
from sqakd.export.compare import Differences, code_differences
from sqakd.export.errors import ExportError
from sqakd.export.graph import clamp_of
from sqakd.export.options import Options, Timing
from sqakd.export.qonnx.execute import executed
from sqakd.export.qonnx.lower import lower_to_qonnx, qonnx_layers
from sqakd.export.qonnx.model import qonnx_model
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.quantization.cost import cost
from sqakd.quantization.layers import layer_bits, quant_layers

pytest.importorskip("qonnx")
SLOW = pytest.mark.slow


@cache
def written(name: str, method: str, bits: int) -> tuple[nn.Module, fx.GraphModule, onnx.ModelProto]:
    """Return a network, the same with QONNX's quantizers, and its model; none of them may be changed."""
    network = make(name, f"quantizer={method}", bits=bits)
    lowered = lower_to_qonnx(network)
    return network, lowered, qonnx_model(lowered, tuple(images_for(name, 1).shape[1:]))  # type: ignore[arg-type]


@cache
def written_chain(*overrides: str) -> tuple[nn.Module, onnx.ModelProto]:
    """Return a network of four layers in a row and its model; neither may be changed."""
    network = chain(*overrides)
    return network, qonnx_model(lower_to_qonnx(network), small.SHAPE)


def quantizers(model: onnx.ModelProto) -> list[tuple[str, dict[str, Any]]]:
    """Return the type and the attributes of each quantizer node, with its bits and scale, weights first."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = []
    for node in sorted(model.graph.node, key=lambda node: node.input[0] not in values):
        if node.domain:
            facts = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            facts["scale"] = values[node.input[1]]
            facts |= {"zero": values[node.input[2]], "bits": values[node.input[3]]} if len(node.input) > 2 else {}
            found.append((node.op_type, facts))
    return found


@pytest.mark.parametrize(
    ("name", "method", "bits"),
    [
        ("resnet8", "lsq", 2),
        ("vgg8", "ewgs", 4),
        *(pytest.param("resnet20", "lsq", bits, marks=SLOW) for bits in (1, 2, 4)),
        *(pytest.param("vgg8", "lsq", bits, marks=SLOW) for bits in (1, 2, 4)),
        *(
            pytest.param("resnet20", method, bits, marks=SLOW)
            for method in ("ewgs", "pact", "dorefa")
            for bits in (1, 3)
        ),
        pytest.param("mobilenet_v2", "ewgs", 2, marks=SLOW),
    ],
)
def test_each_code_that_qonnx_computes_is_the_trained_one(name: str, method: str, bits: int) -> None:
    (network, lowered, model), x = written(name, method, bits), images_for(name, 3)
    differences, logits = code_differences(network, x, executed(model, lowered, x))
    total = sum(differences.values(), Differences())
    assert total.codes > 10_000
    assert total.differing == 0
    assert logits < 1e-5


def test_a_layer_with_bias_and_a_linear_layer_are_the_trained_ones() -> None:
    network, x = chain("quantizer=ewgs", "bits=2", "quantizer.first_last=same"), small.batch(4)
    with torch.no_grad():
        lowered = lower_to_qonnx(network)
        assert torch.allclose(lowered(x), network(x), atol=1e-5)
        got = executed(qonnx_model(lowered, (3, 8, 8)), lowered, x)
        assert set(got.stored) == {layer.name for layer in qonnx_layers(lowered)}
        assert torch.allclose(got.logits, network(x), atol=1e-5)


class Shared(nn.Module):
    """A convolution that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.first(x)).relu()).relu()
        y: Tensor = self.last(x.mean(dim=(2, 3)))
        return y


def test_a_layer_that_is_called_twice_is_compared_in_both_calls() -> None:
    network, x = Shared(), small.batch(3)
    quantize(network, small.scheme("quantizer=lsq", "bits=3"))
    calibrate(network, x)
    lowered = lower_to_qonnx(network.eval())
    got = executed(qonnx_model(lowered, (3, 8, 8)), lowered, x)
    assert [len(codes) for codes in got.stored["twice"]] == [3, 3]
    differences, _ = code_differences(network, x, got)
    assert differences["twice"].codes == 2 * 3 * 4 * 6 * 6
    assert differences["twice"].differing == 0


def test_weights_of_eight_bits_on_an_odd_grid_have_nine() -> None:
    network, x = chain("quantizer=ewgs", "bits=8"), small.batch(2)
    lowered = lower_to_qonnx(network)
    assert {layer.bits for layer in qonnx_layers(lowered)} == {9}
    differences, _ = code_differences(network, x, executed(qonnx_model(lowered, (3, 8, 8)), lowered, x))
    assert sum(differences.values(), Differences()).farthest < 1e-5


def test_each_layer_has_its_own_bits() -> None:
    own = ("quantizer.layer_w_bits={sec*:1,third:5}", "quantizer.layer_a_bits={third:3}")
    network, x = chain("quantizer=lsq", "bits=2", *own), small.batch(8)
    lowered = lower_to_qonnx(network)
    model = qonnx_model(lowered, (3, 8, 8))
    found = Counter(int(facts["bits"]) if "bits" in facts else 1 for _, facts in quantizers(model))
    assert found == Counter(bits for pair in layer_bits(network).values() for bits in pair)
    assert set(found) == {1, 2, 3, 5}
    differences, _ = code_differences(network, x, executed(model, lowered, x))
    assert sum(differences.values(), Differences()).differing == 0


def test_an_operation_that_qonnx_cannot_clean_is_refused() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1), nn.Flatten()
    )
    x = small.batch(2)
    quantize(network, small.scheme("quantizer=lsq", "bits=3"))
    calibrate(network, x)
    lowered = lower_to_qonnx(network.eval())
    with pytest.raises(
        ExportError, match=r"^the package qonnx (cannot clean the model|does not know the shape|cannot run)"
    ):
        executed(qonnx_model(lowered, (3, 8, 8)), lowered, x)


@pytest.mark.parametrize(
    ("method", "bits", "weights", "inputs"),
    [
        ("lsq", 1, ("BipolarQuant", None), ("Quant", (1, 0))),
        ("lsq", 4, ("Quant", (4, 1)), ("Quant", (4, 0))),
        ("ewgs", 2, ("Quant", (3, 1)), ("Quant", (2, 0))),
        pytest.param("ewgs", 1, ("BipolarQuant", None), ("Quant", (1, 0)), marks=SLOW),
        pytest.param("dorefa", 3, ("Quant", (4, 1)), ("Quant", (3, 0)), marks=SLOW),
    ],
)
def test_quantizers_have_the_bits_of_their_grids_and_zero_points_of_0(
    method: str, bits: int, weights: tuple[str, Any], inputs: tuple[str, Any]
) -> None:
    _, model = written_chain(f"quantizer={method}", f"bits={bits}")
    found = quantizers(model)
    kinds = [(kind, (int(f["bits"]), f["signed"]) if "bits" in f else None) for kind, f in found]
    half = len(kinds) // 2
    assert half > 0
    assert set(kinds[:half]) == {weights}
    assert set(kinds[half:]) == {inputs}
    assert all(f["zero"] == 0 and f["narrow"] == 0 and f["rounding_mode"] == b"ROUND" for _, f in found if "zero" in f)


def test_weights_of_an_odd_grid_are_odd_multiples_of_their_scale() -> None:
    network = small.quantized("quantizer=ewgs", "bits=2", "quantizer.per_channel=true").eval()
    for layer in qonnx_layers(lower_to_qonnx(network)):
        multiples = np.unique((layer.weight / layer.scale).round().numpy())
        assert set(multiples.tolist()) <= {-3.0, -1.0, 1.0, 3.0}


@pytest.mark.parametrize("first_last", [(), ("quantizer.first_last=8",)], ids=["float", "8"])
def test_the_cost_that_qonnx_computes_agrees_with_ours(first_last: tuple[str, ...]) -> None:
    """QONNX counts the operations of each pair of types; outer layers have float types there, ours 32 bits."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.inference_cost import inference_cost

    network, model = written_chain("quantizer=lsq", "bits=4", *first_last)
    found = inference_cost(ModelWrapper(model), discount_sparsity=False)["total_cost"]
    assert found["total_bops"] == cost(network, (3, 8, 8)).bit_operations


def test_the_file_is_for_one_image_and_has_all_shapes() -> None:
    _, _, model = written("resnet8", "lsq", 2)
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"image": [1, 3, 16, 16], "logits": [1, 10]}
    known = {value.name for value in (*model.graph.value_info, *model.graph.output)}
    assert {name for node in model.graph.node for name in node.output} <= known
    assert Counter(node.op_type for node in model.graph.node)["Quant"] > 4


@pytest.mark.parametrize(
    ("name", "method", "bits"),
    [
        ("resnet8", "lsq", 2),
        ("vgg8", "ewgs", 1),
        *(pytest.param("resnet20", "lsq", bits, marks=SLOW) for bits in (1, 2, 4)),
        *(pytest.param("resnet20", method, 3, marks=SLOW) for method in ("ewgs", "pact", "dorefa")),
    ],
)
def test_thresholds_give_the_trained_codes(name: str, method: str, bits: int) -> None:
    network, x = make(name, f"quantizer={method}", bits=bits).eval(), images_for(name, 2)
    lowered = lower_to_qonnx(network, thresholds=True)
    model = qonnx_model(lowered, tuple(x.shape[1:]))  # type: ignore[arg-type]
    kinds = Counter(node.op_type for node in model.graph.node if node.domain)
    assert kinds.pop("MultiThreshold") == kinds.pop("BipolarQuant" if bits == 1 else "Quant") > 3
    assert not kinds, "only weights are rounded"
    differences, logits = code_differences(network, x, executed(model, lowered, x))
    total = sum(differences.values(), Differences())
    assert total.codes > 10_000
    assert total.differing == 0
    assert logits < 1e-5


@pytest.mark.parametrize(
    ("signed", "bits", "name"), [("auto", 3, "UINT3"), ("true", 3, "INT3"), ("true", 1, "BIPOLAR")]
)
def test_thresholds_are_exact_in_single_precision(signed: str, bits: int, name: str) -> None:
    """The smallest number of each code, and the one before it."""
    network = chain("quantizer=lsq", f"bits={bits}", f"quantizer.input.signed={signed}")
    lowered = lower_to_qonnx(network, thresholds=True)
    for (_, layer), made in zip(quant_layers(network), qonnx_layers(lowered), strict=True):
        found, codes = made.thresholds[0], layer.input_quantizer.grid().float()
        assert torch.equal(found, found.sort().values)
        assert torch.equal(layer.input_quantizer.encode(found)[0], codes[1:])
        before = torch.nextafter(found, torch.tensor(-torch.inf))
        assert torch.equal(layer.input_quantizer.encode(before)[0], codes[:-1])
    nodes = [dict(facts) for kind, facts in quantizers(qonnx_model(lowered, (3, 8, 8))) if kind == "MultiThreshold"]
    assert {facts["out_dtype"].decode() for facts in nodes} == {name}


def test_a_relu_before_thresholds_is_left_out_where_nothing_else_reads_it() -> None:
    network, plain, _ = written("resnet8", "lsq", 2)  # three blocks, each with a ReLU inside and one behind its sum
    left = [node for node in lower_to_qonnx(network, thresholds=True).graph.nodes if clamp_of(node)]
    assert len(left) == 4, "the first one and those behind the sums have a second reader: the next sum, or the mean"
    assert len([node for node in plain.graph.nodes if clamp_of(node)]) == 7
    signed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    quantize(signed, small.scheme("quantizer=lsq", "bits=2", "quantizer.input.signed=true"))
    calibrate(signed, small.batch(4))
    lowered = lower_to_qonnx(signed.eval(), thresholds=True)
    assert any(clamp_of(node) for node in lowered.graph.nodes), "thresholds below 0 see what the ReLU removes"
    assert torch.allclose(lowered(small.batch(4)), signed(small.batch(4)), atol=1e-6)


class ReadTwice(nn.Module):
    """A ReLU whose input is read once more, which an in-place ReLU has changed by then."""

    def __init__(self, relu: nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), relu
        self.out = nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.out(self.b(self.relu(y)) + y)  # type: ignore[no-any-return]


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(inplace=True)])
def test_a_relu_whose_input_has_another_reader_stays(relu: nn.Module) -> None:
    network, x = ReadTwice(relu), small.batch(4)
    quantize(network, small.scheme("quantizer=lsq", "bits=2", "quantizer.first_last=float"))
    calibrate(network, x)
    lowered = lower_to_qonnx(network.eval(), thresholds=True)
    assert torch.allclose(lowered(x), network(x), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "layout", "thresholds"),
    [
        ((6,), "NC", True),
        ((5, 6), "NWC", True),
        ((4, 5, 6), "NHWC", True),
        ((4, 5, 6), "NHWC", False),
        *(pytest.param(*case, False, marks=SLOW) for case in (((6,), "NC"), ((5, 6), "NWC"))),
    ],
)
def test_linear_layers_take_inputs_of_any_rank(shape: tuple[int, ...], layout: str, thresholds: bool) -> None:
    network, x = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 5), nn.Linear(5, 3)), torch.randn(4, *shape)
    scheme = small.scheme("quantizer=lsq", "bits=3", "quantizer.per_channel=true", "quantizer.first_last=same")
    quantize(network, scheme)
    calibrate(network, x)
    lowered = lower_to_qonnx(network.eval(), thresholds=thresholds)
    assert torch.allclose(lowered(x), network(x), atol=1e-5)
    nodes = [facts for kind, facts in quantizers(qonnx_model(lowered, shape)) if kind == "MultiThreshold"]  # type: ignore[arg-type]
    assert {facts["data_layout"].decode() for facts in nodes} == ({layout} if thresholds else set())


def test_codes_that_no_node_has_are_refused() -> None:
    network = small.quantized("quantizer=lsq_released", "bits=1").eval()
    with pytest.raises(ExportError, match=r"^layer \S+: the input has 2 codes from -1 to 1; with zero point 0, QONNX"):
        lower_to_qonnx(network)


@pytest.mark.parametrize("changed", [{"profile": "int8"}, {"pack": "none"}, {"preprocess": True}, {"regrid": True}])
def test_options_of_the_other_format_are_refused(changed: dict[str, Any]) -> None:
    timing = Timing(rounds=0, seconds=0.1, batches=[1], threads=[1])
    values: dict[str, Any] = {"profile": "exact", "pack": "auto", "preprocess": False, "regrid": False}
    values |= {"thresholds": False, "gate": None, "images": None, "calibration_images": 8, "benchmark": timing}
    with pytest.raises(ExportError) as error:
        Options(format="qonnx", **values | changed)
    assert f"omit {next(iter(changed))} with format=qonnx" in explain(error.value)
    with pytest.raises(
        ExportError, match="thresholds=true is a form of format=qonnx, but format=onnx was given"
    ) as other:
        Options(format="onnx", **values | {"thresholds": True})
    assert "use format=qonnx, or omit thresholds" in explain(other.value)

"""The ONNX file in the runtimes, compared with the lowered network; its form; and its packed weights."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import small
import torch
from export_networks import chain, images_for, make, two_blocks
from onnx import TensorProto, numpy_helper
from onnx_files import executed, run, weights_by_name
from torch import Tensor, fx, nn

from sqakd.errors import raised_in
from sqakd.export.eight_bit import quantize_float_parts, quantize_skips
from sqakd.export.errors import ExportError
from sqakd.export.levels import IntegerOutput
from sqakd.export.lower import Lowering, lower
from sqakd.export.modules import integer_layers
from sqakd.export.options import Pack, Timing
from sqakd.export.pack import pack
from sqakd.export.to_onnx import Deployed, to_onnx
from sqakd.export.translations import Weights

# Two residual networks, one with codes -1 and 1, one whose last layer has integers, one with pooling between layers.
CASES: dict[str, Callable[[], nn.Module]] = {
    "ewgs": lambda: two_blocks("quantizer=ewgs", "bits=2"),
    "lsq": lambda: two_blocks("quantizer=lsq", "bits=4", "quantizer.per_channel=true"),
    "odd": lambda: chain("quantizer=lsq_released", "bits=1"),
    "same": lambda: chain("quantizer=pact", "bits=3", "quantizer.first_last=same"),
    "pools": lambda: make("vgg8", "quantizer=lsq", bits=1),
}
each_case = pytest.mark.parametrize("case", CASES)


def inputs(case: str, n: int) -> Tensor:
    return images_for("vgg8", n) if case == "pools" else small.batch(n, seed=7)


@cache
def lowered(case: str) -> fx.GraphModule:
    return lower(CASES[case](), Lowering())


def model(case: str, weights: Weights = "cast") -> onnx.ModelProto:
    return _model(case, weights)


@cache
def _model(case: str, weights: Weights) -> onnx.ModelProto:
    x = inputs(case, 1)
    return to_onnx(Deployed(lowered(case), None, None), tuple(x.shape[1:]), weights=weights)  # type: ignore[arg-type]


@each_case
@torch.no_grad()
def test_the_file_computes_the_same_as_the_lowered_network(case: str) -> None:
    for n in (1, 6):
        x = inputs(case, n)
        wanted = lowered(case)(x).numpy()
        assert np.abs(run(model(case), x) - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("case", ["ewgs", "odd", "pools"])
def test_layers_between_two_quantizers_run_as_integer_kernels(case: str, tmp_path: Any) -> None:
    fused = [layer for layer in integer_layers(lowered(case)) if isinstance(layer, IntegerOutput)]
    assert fused
    assert executed(model(case), tmp_path)["QLinearConv"] == len(fused)


@each_case
def test_openvino_computes_the_same_as_onnx_runtime(case: str) -> None:
    openvino = pytest.importorskip("openvino")
    x = inputs(case, 6)
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(model(case).SerializeToString()),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1},
    )
    wanted = run(model(case), x)
    assert np.abs(compiled({"image": x.numpy()})[0] - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


def test_the_file_contains_nothing_but_the_model() -> None:
    proto = model("ewgs")
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 21)]
    assert not proto.functions
    assert not proto.graph.value_info
    assert not proto.metadata_props
    assert not any(node.metadata_props or node.doc_string or node.domain for node in proto.graph.node)
    assert [value.name for value in proto.graph.input] == ["image"]
    assert [value.name for value in proto.graph.output] == ["logits"]
    dimension = proto.graph.input[0].type.tensor_type.shape.dim[0]
    assert dimension.dim_param
    assert len(json.dumps([node.name for node in proto.graph.node])) < 12 * len(proto.graph.node)


@torch.no_grad()
def test_a_file_with_normalisation_takes_pixels() -> None:
    mean, std = [0.2, 0.3, 0.4], [0.5, 0.6, 0.7]
    pixels = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = (pixels / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    inside = to_onnx(Deployed(lowered("same"), mean, std), (3, 8, 8), weights="cast")
    assert inside.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    np.testing.assert_allclose(run(inside, pixels), run(model("same"), images), atol=1e-4)


class Bessel(nn.Module):
    """A network with an operator that ONNX does not have."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.special.bessel_j0(self.network(x))
        return y


class Branching(Bessel):
    """A network whose forward depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x) if x.sum() > 0 else self.network(-x)
        return logits


def test_a_network_that_cannot_be_written_is_refused_in_one_line() -> None:
    network = lower(Bessel(CASES["same"]()), Lowering())
    with pytest.raises(ExportError, match=r"torch cannot write .* as ONNX: .*bessel_j0") as error:
        to_onnx(Deployed(network, None, None), (3, 8, 8), weights="cast")
    assert "\n" not in str(error.value)
    with pytest.raises(ExportError, match="its forward branches on values") as error:
        lower(Branching(CASES["same"]()), Lowering())
    assert "\n" not in str(error.value)
    with pytest.raises(ExportError, match="no quantized layer"):
        lower(small.network(), Lowering())


# profiles


def test_profile_int8_convolves_nothing_in_float(tmp_path: Any) -> None:
    network = lower(CASES["ewgs"](), Lowering())
    quantize_float_parts(network, small.batch(16))
    assert not any(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules())
    proto = to_onnx(Deployed(network, None, None), (3, 8, 8), weights="dequantize")
    ops = executed(proto, tmp_path)
    assert ops["QLinearConv"] == 5
    assert ops["QLinearAdd"] == 2
    assert not {"Conv", "FusedConv", "Add"} & set(ops)
    x = small.batch(16)
    with torch.no_grad():
        wanted = network(x).numpy()
    spread = wanted.std()
    assert np.median(np.abs(run(proto, x) - wanted)) <= 0.2 * spread


def test_profile_trt_has_the_form_that_tensorrt_accepts() -> None:
    """Integers are int8 with zero point 0, scales positive, Clips on real values, and skip connections int8."""
    network = lower(CASES["lsq"](), Lowering(signed=True))
    quantize_skips(network, small.batch(16))
    proto = to_onnx(Deployed(network, None, None), (3, 8, 8), weights="dequantize")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    quantizing = [node for node in proto.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantizing
    for node in quantizing:
        assert (constants[node.input[1]] > 0).all()
        if len(node.input) > 2:
            assert constants[node.input[2]].dtype == np.int8
            assert not constants[node.input[2]].any()
    assert not any(tensor.data_type == TensorProto.UINT8 for tensor in proto.graph.initializer)
    for node in proto.graph.node:
        if node.op_type == "Clip":
            assert constants[node.input[1]].dtype == np.float32
        if node.op_type == "Add":
            kinds = collections.Counter(makers[name].op_type for name in node.input)
            assert kinds["DequantizeLinear"] == 1, kinds
    x = small.batch(6, seed=7)
    with torch.no_grad():
        wanted = network(x).numpy()
    assert np.abs(run(proto, x) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_profile_trt_refuses_unsigned_8_bit_inputs() -> None:
    network = small.quantized("quantizer=lsq", "bits=8").eval()
    with pytest.raises(ExportError, match=r"the input codes 0 \.\. 255 do not fit int8"):
        lower(network, Lowering(signed=True))


# packing


@pytest.mark.parametrize("method", ["auto", "table", "uint4"])
@pytest.mark.parametrize(("case", "weights"), [*((case, "cast") for case in CASES), ("ewgs", "dequantize")])
def test_packed_weights_give_identical_outputs(case: str, weights: Weights, method: Pack, tmp_path: Any) -> None:
    proto = model(case, weights)
    packed = pack(proto, weights_by_name(lowered(case)), method)
    x = inputs(case, 6)
    assert np.array_equal(run(packed, x), run(proto, x))
    assert packed.ByteSize() < proto.ByteSize()
    assert executed(packed, tmp_path)["QLinearConv"] == executed(proto, tmp_path)["QLinearConv"]


def test_pack_none_does_not_change_the_model() -> None:
    proto = model("ewgs")
    assert pack(proto, weights_by_name(lowered("ewgs")), "none") == proto


def test_the_same_network_gives_the_same_file() -> None:
    again = to_onnx(Deployed(lowered("same"), None, None), (3, 8, 8), weights="cast")
    assert again.SerializeToString(deterministic=True) == model("same").SerializeToString(deterministic=True)


def test_an_error_of_our_own_exporter_is_distinguished_from_one_of_torch() -> None:
    """The first is a mistake, which keeps its traceback; the second is about the network."""
    with pytest.raises(ExportError) as own:
        Timing(rounds=-1, seconds=1.0, batches=[1], threads=[1])
    with pytest.raises(RuntimeError) as torchs:
        torch.nn.functional.conv2d(torch.zeros(1), torch.zeros(1))
    assert (raised_in(own.value, "export"), raised_in(own.value, "models")) == (True, False)
    assert not raised_in(torchs.value, "export")


@pytest.mark.parametrize("weights", ["cast", "dequantize"])
@torch.no_grad()
def test_each_convolution_has_a_weight_of_its_own(weights: Weights) -> None:
    """A first layer of 8 bits is computed for both of its readers, the first block and its shortcut."""
    network = two_blocks("quantizer=lsq", "bits=2", "residual_bits=8", "quantizer.first_last=8")
    written = to_onnx(Deployed(lower(network, Lowering()), None, None), small.SHAPE, weights=weights)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    first = [f"network.conv1_{form}.weight" for form in ("integer", "codes")]
    assert np.array_equal(stored[first[0]], stored[first[1]])
    names = set()
    sources = {node.output[0]: node.input[0] for node in written.graph.node}
    for node in written.graph.node:
        if node.op_type == "Conv":
            name = node.input[1]
            while name in sources:
                name = sources[name]
            names.add(name)
    assert len(names) == sum(node.op_type == "Conv" for node in written.graph.node)

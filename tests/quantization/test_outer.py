"""What surrounds the quantized layers as in the published code (`outer=released`), against its numbers."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import golden_data as golden
import numpy as np
import pytest
import small
import torch
from golden_tiny import NETWORKS, make, our_name
from torch import Tensor, nn

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.export.lower import Lowering, lower
from sqakd.quantization.calibrate import calibrate, visit
from sqakd.quantization.convert import dequantize, quantize
from sqakd.quantization.layers import quant_layers, quantizers
from sqakd.quantization.outer import Entry, OuterConv2d, OuterLinear
from sqakd.quantization.parameters import split_parameters

METHODS = ("pact", "lsq", "dorefa")
CASES = [(option, name, method) for option, name in NETWORKS for method in METHODS]
# Every network once and every method at least once; the other pairs are for the whole suite.
QUICK = {("resnet18", "dorefa"), ("vgg11", "lsq"), ("mobilenet_v2", "pact"), ("squeezenet1_0", "dorefa")}


def released(method: str, *overrides: str) -> Any:
    return small.scheme(f"quantizer={method}_released", "quantizer.outer=released", *overrides)


def round_outer(model: nn.Module, d: dict[str, Any], names: dict[str, list[str]]) -> None:
    """Round outer layers with the reference's 32 bits for LSQ, the only step that our outer layers omit."""
    for kind in ("weight", "activation"):
        key = kind[0]
        for name, bits, scale in zip(
            names[f"{kind}_quantisers"], d[f"lsq_bits_{key}"], d[f"lsq_scale_{key}"], strict=True
        ):
            if bits != 32:
                continue
            step = torch.tensor(float(scale))
            if kind == "weight":
                weight = model.get_parameter(f"{our_name(name)}.weight")
                weight.data.copy_(step * (weight.data * (1 / step)).round())
            else:
                outer = [k for k, m in model.named_modules() if type(m) in (nn.Conv2d, nn.Linear)]
                layer = model.get_submodule(outer[0] if name == "x" else outer[-1])
                layer.register_forward_pre_hook(lambda _, args, step=step: step * (args[0] * (1 / step)).round())


@pytest.mark.parametrize(
    ("option", "name", "method"),
    [
        pytest.param(*case, id=f"{case[0]}-{case[2]}", marks=[] if (case[0], case[2]) in QUICK else [pytest.mark.slow])
        for case in CASES
    ],
)
def test_the_network_equals_the_published_one(option: str, name: str, method: str) -> None:
    """Steps and logits, after the calibration and with the running statistics put back, in both modes."""
    d, names = golden.load(f"06_academic_{name}"), golden.names(f"06_academic_{name}_quantisers")
    model, config = make(option)
    layers = [layer | {"name": our_name(layer["name"])} for layer in golden.names(f"06_tiny_{name}_layers")]
    seed, shape = int(d[f"{method}_seed"]), d["input_shape"]
    golden.fill(model, layers, seed)
    filled = {key: value.clone() for key, value in model.named_buffers()}
    first_last = "first" if option == "squeezenet1_0" else "float"
    scheme = released(method, f"bits={d[f'{method}_bits']}", f"quantizer.first_last={first_last}")
    quantize(model, scheme, first=config["first"], image_shape=(3, 64, 64))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the reference keeps dropout in evaluation mode
    calibrate(model, golden.images(shape, seed, calibration=True))
    if method == "lsq":
        round_outer(model, d, names)

    found = dict(quant_layers(model))
    weights = zip(map(our_name, names["weight_quantisers"]), *of(d, method, "w"), strict=True)
    inner = {key: scale for key, scale, bits in weights if bits < 32}
    assert inner.keys() == found.keys()
    for key, scale in inner.items():
        assert float(found[key].weight_quantizer.codes(found[key].weight).scale) == pytest.approx(scale, rel=1e-5)
    inputs = dict.fromkeys(layer.input_quantizer for layer in found.values())
    x = golden.images(shape, seed, calibration=False)
    scales = [s for s, b in zip(*of(d, method, "a"), strict=True) if b < 32]
    assert sorted(float(q.codes(x).scale) for q in inputs) == pytest.approx(sorted(scales), rel=1e-5)

    # Array-relative errors between two convolution back-ends and against double precision, which measure how far equal
    # networks may differ.
    fill, train, _, evaluation, fill64, train64 = d[f"{method}_backend_difference"]
    with torch.no_grad():
        assert_close(model.eval()(x), d[f"{method}_logits_eval"], max(1e-4, 10 * evaluation))
        for key, value in model.named_buffers():
            if key in filled:
                value.copy_(filled[key])
        assert_close(model(x), d[f"{method}_logits_eval_fill"], max(1e-4, 10 * min(fill, fill64)))
        assert_close(model.train()(x), d[f"{method}_logits_train"], max(1e-4, 10 * min(train, train64)))


def assert_close(got: Tensor, reference: np.ndarray, tolerance: float) -> None:
    """Compare logits; in one image, a code may be rounded the other way, as on a processor with AVX2 alone."""
    errors = np.abs(got.double().numpy() - reference).max(axis=1) / np.abs(reference).max()
    assert len(errors) > 1
    assert sorted(errors)[-2] <= tolerance
    assert errors.max() <= max(0.05, tolerance)


def of(d: dict[str, Any], method: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    return d[f"{method}_scale_{key}"], d[f"{method}_bits_{key}"]


class Residual(nn.Module):
    """x + conv(x) between a first and a last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Conv2d(3, 4, 3), Block(), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.block(self.first(x).relu_()).mean((2, 3)))
        return y


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.left(x) + self.right(x)
        return y


def residual(method: str) -> Residual:
    torch.manual_seed(0)
    model = Residual()
    assert quantize(model, released(method, "bits=2"), image_shape=small.SHAPE) == ["block.left", "block.right"]
    calibrate(model, small.batch(8))
    return model


@pytest.mark.parametrize("method", METHODS)
def test_all_readers_of_a_tensor_get_its_quantized_values(method: str) -> None:
    model = residual(method)
    assert model.block.left.input_quantizer is model.block.right.input_quantizer
    seen = []
    model.block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))  # after the entry's hook
    raw: list[Tensor] = []
    visit(model, small.batch(8, 5), lambda _name, _layer, x: raw.append(x), training=False)
    quantizer = quantizers(model)[1]
    assert torch.equal(seen[0], quantizer(raw[0]))
    assert len(set(seen[0].flatten().tolist())) <= 4 < len(set(raw[0].flatten().tolist())), (
        "statistics read the tensor before the quantizer"
    )
    assert raw[0] is raw[1]


def test_a_shared_step_is_one_parameter_with_the_gradients_of_all_readers() -> None:
    model = residual("lsq")
    model(small.batch(8)).square().sum().backward()
    _, ranges = split_parameters(model)
    assert len(quantizers(model)) == len(ranges) == 3, "two weights and one input"
    assert all(p.grad is not None and p.grad != 0 for p in ranges)


@pytest.mark.parametrize(
    ("method", "weight", "input"), [("pact", True, False), ("lsq", False, False), ("dorefa", True, True)]
)
def test_outer_layers_are_transformed_where_the_published_code_does(method: str, weight: bool, input: bool) -> None:
    model = residual(method)
    for layer, kind in ((model.first, OuterConv2d), (model.last, OuterLinear)):
        assert isinstance(layer, kind) == (weight or input)
        if isinstance(layer, OuterConv2d | OuterLinear):
            largest = layer.map_weight(layer.weight).abs().max().item()
            assert largest == pytest.approx(1, abs=1e-3)
            x = torch.tensor([-3.0, 0.5])
            assert torch.equal(layer.map_input(x), x) != input


def test_nothing_is_rounded_while_ranges_are_set() -> None:
    torch.manual_seed(0)
    model = Residual()
    outputs = [model.train()(small.batch(8))]
    quantize(model, released("lsq", "bits=2"), image_shape=small.SHAPE)
    hook = model.register_forward_hook(lambda _, _args, y: outputs.append(y))
    calibrate(model, small.batch(8))
    hook.remove()
    before, during = outputs
    assert torch.allclose(before, during, atol=1e-6)
    assert not torch.allclose(model(small.batch(8)), before, atol=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_and_a_restored_network_give_the_same_outputs(method: str) -> None:
    model, x = residual(method).eval(), small.batch(4, 3)
    twin = copy.deepcopy(model)
    fresh = Residual()
    quantize(fresh, released(method, "bits=2"), image_shape=small.SHAPE)
    fresh.load_state_dict(model.state_dict(), strict=True)
    before = model(x)
    for other in (twin, fresh.eval()):
        assert torch.equal(other(x), before)
    for parameter in model.parameters():
        parameter.data.zero_()
    assert torch.equal(twin(x), before), "the hooks of a copy read the copied layers"


def test_dequantize_restores_the_float_network() -> None:
    torch.manual_seed(0)
    wanted = Residual()(small.batch(2))
    model = residual("dorefa")
    assert dequantize(model) == ["block.left", "block.right"]
    assert torch.equal(model(small.batch(2)), wanted)
    assert not [h for m in model.modules() for h in m._forward_pre_hooks.values() if isinstance(h, Entry)]


def test_wrong_values_are_refused() -> None:
    with pytest.raises(SqakdError, match="outer='shared': expected float or released"):
        replace(released("lsq"), outer="shared")
    with pytest.raises(SqakdError, match="outer=released is the published code of PACT, LSQ and DoReFa"):
        replace(released("lsq"), output_scale=True)


@pytest.mark.parametrize("method", METHODS)
def test_the_export_refuses_such_a_network(method: str) -> None:
    with pytest.raises(SqakdError, match="only networks with outer=float can be exported") as error:
        lower(residual(method).eval(), Lowering())
    assert "quantizer.outer=float" in explain(error.value)

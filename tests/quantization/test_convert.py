"""Conversion to a quantized network and back, calibration in the order of running, and the parameter groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import small
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.quantization.calibrate import calibrate, visit
from sqakd.quantization.convert import dequantize, quantize
from sqakd.quantization.layers import QuantLayer, quant_layers, quantizers
from sqakd.quantization.parameters import split_parameters

INNER = [f"layer{stage}.0.conv{i}" for stage in (1, 2, 3) for i in (1, 2)]
SCHEME = small.scheme("quantizer=ewgs", "bits=2")
SAME = replace(SCHEME, first_last="same")


class Backwards(nn.Module):
    """A network that registers its layers in another order than it runs them, and may skip one."""

    def __init__(self, *, skip: bool = False) -> None:
        super().__init__()
        self.skip = skip
        self.third, self.second = nn.Conv2d(4, 5, 3), nn.Conv2d(2, 4, 3, padding=1)
        self.first, self.norm = nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        x = F.pad(x, (0, 0, 0, 0, 0, 2)) if self.skip else F.relu(self.second(x))
        y: Tensor = self.third(x)
        return y


def quantized_backwards(**options: bool) -> Backwards:
    torch.manual_seed(0)
    model = Backwards(**options)
    quantize(model, SAME)
    return model


def quant_layer(model: nn.Module, name: str) -> QuantLayer:
    layer = model.get_submodule(name)
    assert isinstance(layer, QuantLayer)
    return layer


def bits(model: nn.Module) -> dict[str, tuple[int, int]]:
    return {n: (layer.weight_quantizer.bits, layer.input_quantizer.bits) for n, layer in quant_layers(model)}


@pytest.mark.parametrize("training", [True, False])
def test_dequantize_undoes_quantize(training: bool) -> None:
    model, x = small.network().train(training), small.batch(4)
    untouched = small.network().train(training)
    assert dequantize(model) == []
    assert quantize(model, SCHEME) == INNER
    assert [name for name, _ in quant_layers(model)] == INNER
    assert dequantize(model) == INNER
    assert [(name, type(m)) for name, m in model.named_modules()] == [
        (name, type(m)) for name, m in untouched.named_modules()
    ]
    state = model.state_dict()
    assert list(state) == list(untouched.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in untouched.state_dict().items())
    assert {m.training for m in model.modules()} == {training}
    assert torch.equal(model(x), untouched(x))


def test_quantizing_changes_the_output_and_keeps_the_parameters() -> None:
    model, x = small.network().eval(), small.batch(4)
    before, parameters = model(x), dict(model.named_parameters())
    quantize(model, SCHEME)
    calibrate(model, small.batch(8))
    assert not torch.allclose(model(x), before, atol=0.1)
    assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())


def test_dequantize_keeps_trained_weights() -> None:
    model = small.quantized("quantizer=ewgs")
    trained = {name: p.data.add_(0.1) for name, p in model.named_parameters() if name.endswith("conv1.weight")}
    dequantize(model)
    assert len(trained) == 4
    assert all(torch.equal(model.get_parameter(name), weight) for name, weight in trained.items())


def test_first_layer_alone_can_stay_float() -> None:
    model = small.network()
    assert quantize(model, replace(SCHEME, first_last="first")) == [*INNER, "linear"]


@pytest.mark.parametrize(
    ("first_last", "outer"), [("float", None), ("8", (8, 8)), (8, (8, 8)), ("same", (2, 3))], ids=str
)
def test_outer_layers_get_the_bits_of_the_scheme(first_last: Any, outer: tuple[int, int] | None) -> None:
    model = small.network()
    names = quantize(model, replace(small.scheme("quantizer=ewgs", "w_bits=2", "a_bits=3"), first_last=first_last))
    assert names == (INNER if outer is None else ["conv1", *INNER, "linear"])
    expected = dict.fromkeys(INNER, (2, 3))
    assert bits(model) == (expected if outer is None else {"conv1": outer, **expected, "linear": outer})


@pytest.mark.parametrize("value", ["4", "none", None, True])
def test_unknown_policy_for_the_outer_layers_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="expected float, 8, same or first"):
        replace(SCHEME, first_last=value)


def test_quantized_network_is_not_quantized_again() -> None:
    model = small.quantized("quantizer=ewgs")
    with pytest.raises(ValueError, match="quantized already"):
        quantize(model, SCHEME)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.Sequential(nn.ReLU()), 0),
        (nn.Sequential(nn.Linear(2, 2)), 1),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 2),
    ],
)
def test_network_without_a_layer_to_quantize_is_refused(model: nn.Module, found: int) -> None:
    with pytest.raises(SqakdError, match=rf"found {found} Conv2d and Linear layers and none to quantize") as error:
        quantize(model, SCHEME)
    assert "quantizer.first_last=same" in explain(error.value)
    assert list(quant_layers(model)) == []


def test_each_quantizer_has_its_own_rounding() -> None:
    model = small.quantized("quantizer=ewgs")
    assert len({id(quantizer.rounding) for quantizer in quantizers(model)}) == 2 * len(INNER)


def test_quantizers_are_listed_by_layer_and_weight_first() -> None:
    model = small.quantized("quantizer=ewgs", "w_bits=2", "a_bits=3")
    names = {module: name for name, module in model.named_modules()}
    expected = [f"{name}.{kind}_quantizer" for name in INNER for kind in ("weight", "input")]
    assert [names[quantizer] for quantizer in quantizers(model)] == expected


def test_visit_follows_the_order_of_running_and_changes_nothing() -> None:
    model = quantized_backwards()
    x = small.batch(4)
    calibrate(model, x)
    assert [name for name, _ in quant_layers(model)] == ["third", "second", "first"]
    seen: list[tuple[str, tuple[int, ...]]] = []

    def look(name: str, layer: QuantLayer, tensor: Tensor) -> None:
        assert layer is model.get_submodule(name)
        assert not torch.is_grad_enabled()
        seen.append((name, tuple(tensor.shape)))

    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for was_training in (True, False):
        seen.clear()
        visit(model.train(was_training), x, look, training=False)
        assert seen == [("first", (4, 3, 8, 8)), ("second", (4, 2, 6, 6)), ("third", (4, 4, 6, 6))]
        assert {module.training for module in model.modules()} == {was_training}
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    model(x)
    assert len(seen) == 3, "the hooks are removed"


def test_visit_restores_the_network_after_an_error() -> None:
    model = quantized_backwards().eval()

    def look(name: str, layer: QuantLayer, tensor: Tensor) -> None:
        raise KeyError(name)

    with pytest.raises(KeyError, match="first"):
        visit(model, small.batch(2), look, training=True)
    assert not model.training
    model(small.batch(2))


@pytest.mark.parametrize("training", [True, False])
def test_calibration_runs_through_already_quantized_layers(training: bool) -> None:
    """Each range is that of the layer's input with all earlier layers quantized; batch norm makes one step."""
    model, x = quantized_backwards().train(training), small.batch(4)
    calibrate(model, x)
    assert {module.training for module in model.modules()} == {training}

    twin = Backwards()
    quantize(twin, SAME)
    twin.load_state_dict(quantized_backwards().state_dict())
    first, second, third = (quant_layer(twin, name) for name in ("first", "second", "third"))
    with torch.no_grad():
        first.calibrate(x)
        y = first(x)
        inner = F.relu(twin.norm.train()(y))
        second.calibrate(inner)
        third.calibrate(F.relu(second(inner)))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in twin.state_dict().items())
    assert int(model.norm.num_batches_tracked) == 1  # type: ignore[arg-type]
    torch.testing.assert_close(model.norm.running_mean, 0.1 * y.mean(dim=(0, 2, 3)))


def test_network_is_calibrated_only_once() -> None:
    model = small.quantized("quantizer=ewgs")
    with pytest.raises(RuntimeError, match="already calibrated"):
        calibrate(model, small.batch(8))


def test_layer_without_a_part_in_the_forward_pass_is_reported() -> None:
    with pytest.raises(ValueError, match=r"these layers take no part in the forward pass, .*: second$"):
        calibrate(quantized_backwards(skip=True), small.batch(4))


def test_layer_that_cannot_be_calibrated_is_reported() -> None:
    with pytest.raises(ValueError, match="layer first: cannot calibrate"):
        calibrate(quantized_backwards(), torch.zeros(4, *small.SHAPE))


@pytest.mark.parametrize("method", ["ewgs", "lsq", "pact", "dorefa"])
def test_each_parameter_has_one_owner(method: str) -> None:
    model, floats = small.quantized(f"quantizer={method}"), small.network()
    network, quantizer = split_parameters(model)
    assert len({*network, *quantizer}) == len(network) + len(quantizer) == len(list(model.parameters()))
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert [names[parameter] for parameter in network] == [name for name, _ in floats.named_parameters()]
    assert all(".conv" in names[parameter] for parameter in quantizer)
    assert split_parameters(floats) == (list(floats.parameters()), [])


def test_ewgs_has_five_numbers_per_layer() -> None:
    assert len(split_parameters(small.quantized("quantizer=ewgs"))[1]) == 5 * len(INNER)

"""Residual sums on integers (`residual_bits`): the formula, the shared step, calibration, and what is refused."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import pytest
import small
import torch
from torch import Tensor, nn

from sqakd.advice import explain
from sqakd.errors import SqakdError
from sqakd.models.vgg import VGG
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import dequantize, quantize
from sqakd.quantization.layers import quantizers
from sqakd.quantization.parameters import split_parameters
from sqakd.quantization.residual import QuantResidualSum, quantize_sums, residual_sums
from sqakd.sums import ResidualSum

SUMS = ["layer1.0.sum", "layer2.0.sum", "layer3.0.sum"]


def one_sum(bits: int = 8, *, signed_shortcut: bool = False, step: float = 0.1, relu: bool = True) -> QuantResidualSum:
    """Return a calibrated sum."""
    network = nn.Sequential(ResidualSum(relu=relu))
    quantize_sums(network, bits)
    (total,) = network
    assert isinstance(total, QuantResidualSum)
    total.quantizer.step.data.fill_(step)
    total.signed_shortcut = signed_shortcut
    return total


def operands(n: int = 1000, *, signed_shortcut: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    branch, shortcut = (12 * torch.randn(n, generator=generator) for _ in range(2))
    return branch, shortcut if signed_shortcut else shortcut.abs()


def wanted(
    branch: Tensor, shortcut: Tensor, step: float, bits: int, *, signed_shortcut: bool, relu: bool = True
) -> Tensor:
    """Return the codes of the sum, by the equations of the module's docstring, in float64."""
    half, high = 2 ** (bits - 1), 2**bits - 1
    p = (branch.double() / step).round().clamp(-half, half - 1)
    low, top = (-half, half - 1) if signed_shortcut else (0, high)
    r = (shortcut.double() / step).round().clamp(low, top)
    return (p + r).clamp(0, high) if relu else (p + r).clamp(-half, half - 1)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("signed_shortcut", [False, True])
@pytest.mark.parametrize("bits", [4, 5, 8])
def test_the_sum_follows_its_equations(bits: int, signed_shortcut: bool, relu: bool) -> None:
    step = 2.0**-3 * 2 ** (8 - bits)  # a power of two, so that division rounds nothing
    total = one_sum(bits, signed_shortcut=signed_shortcut, step=step, relu=relu)
    branch, shortcut = operands(signed_shortcut=signed_shortcut)
    got = total(branch, shortcut).double() / step
    codes = wanted(branch, shortcut, step, bits, signed_shortcut=signed_shortcut, relu=relu)
    assert torch.equal(got, codes)
    top = 2 ** (bits - 1) - 1
    if not relu:
        assert {float(top), *([-top - 1.0] if signed_shortcut else [])} <= set(codes.tolist())  # the ends occur
        return
    assert {0.0, 2.0 * top if signed_shortcut else 2.0**bits - 1} <= set(codes.tolist())  # both ends occur


def test_the_gradients_are_those_of_lsq() -> None:
    step, bits = 0.125, 8
    total = one_sum(bits, step=step)
    branch, shortcut = (x.requires_grad_() for x in operands())
    upstream = torch.randn(len(branch), generator=torch.Generator().manual_seed(1))
    total(branch, shortcut).backward(upstream)
    b, s, g = branch.detach().double() / step, shortcut.detach().double() / step, upstream.double()
    p, r = b.round().clamp(-128, 127), s.round().clamp(0, 255)
    passes = (p + r > 0) & (p + r < 255)  # as in the gradient of ReLU, the ends do not pass
    of_branch, of_shortcut = passes & (b >= -128) & (b <= 127), passes & (s <= 255)
    assert branch.grad is not None
    torch.testing.assert_close(branch.grad, torch.where(of_branch, upstream, 0))
    assert shortcut.grad is not None
    torch.testing.assert_close(shortcut.grad, torch.where(of_shortcut, upstream, 0))
    # d output / d step = code of the sum - the unrounded codes of the operands that pass, scaled as in LSQ.
    codes = (p + r).clamp(0, 255)
    each = codes - torch.where(of_branch, b, 0) - torch.where(of_shortcut, s, 0)
    inside = of_branch & of_shortcut
    assert float(each[inside].abs().max()) <= 1  # two rounding errors
    assert total.quantizer.step.grad is not None
    assert float(total.quantizer.step.grad) == pytest.approx(
        float((g * each).sum()) / math.sqrt(len(b) * 127), rel=1e-3
    )


def test_the_output_under_autocast_is_on_the_grid_of_single_precision() -> None:
    total = one_sum(step=0.0371)
    branch, shortcut = operands()
    half, single = total(branch.bfloat16(), shortcut.bfloat16()), total(branch.bfloat16().float(), shortcut)
    assert half.dtype == torch.float32
    assert torch.equal((half / total.quantizer.step).round() * total.quantizer.step, half)
    assert float((half - single).detach().abs().max()) < 0.2


def quantized(*overrides: str) -> nn.Module:
    return small.quantized("quantizer=lsq", "residual_bits=8", *overrides)


def test_all_sums_of_a_network_share_one_learned_step() -> None:
    network = quantized()
    assert [name for name, _ in residual_sums(network)] == SUMS
    assert len({id(total.quantizer) for _, total in residual_sums(network)}) == 1
    weights, ranges = split_parameters(network)
    step = residual_sums(network)[0][1].quantizer.step
    assert [parameter is step for parameter in ranges].count(True) == 1
    assert not any(parameter is step for parameter in weights)
    assigned = copy.deepcopy(network)
    assigned.load_state_dict(copy.deepcopy(network.state_dict()), assign=True)
    for other in (copy.deepcopy(network), copy.deepcopy(network).double(), assigned):
        assert len({id(total.quantizer.step) for _, total in residual_sums(other)}) == 1
    network(small.batch(4)).sum().backward()
    assert step.grad is not None
    assert float(step.grad) != 0


def test_the_step_starts_where_no_value_of_the_calibration_batch_is_clipped() -> None:
    network = small.network()
    quantize(network, small.scheme("quantizer=lsq", "residual_bits=8"))
    ends: list[float] = []

    def look(module: nn.Module, args: tuple[Tensor, Tensor], output: Tensor) -> None:
        assert torch.equal(output, torch.relu(args[0] + args[1]))  # real while the network is calibrated
        ends.extend([float(args[0].abs().max()) / 127, float(args[1].max()) / 255, float(output.max()) / 255])

    hooks = [total.register_forward_hook(look) for _, total in residual_sums(network)]
    calibrate(network, small.batch(8))
    for hook in hooks:
        hook.remove()
    assert residual_sums(network)[0][1].quantizer.step.item() == pytest.approx(max(ends), rel=1e-6)
    assert bool(residual_sums(network)[0][1].quantizer.calibrated)
    assert all(total.covering_step is None for _, total in residual_sums(network))


def test_the_step_is_a_power_of_two_if_those_of_the_layers_are() -> None:
    exact, network = quantized(), small.quantized("quantizer=lsq_pow2", "residual_bits=8")
    step = residual_sums(network)[0][1].quantizer.step.item()
    assert math.log2(step).is_integer()
    assert step >= 0.9 * residual_sums(exact)[0][1].quantizer.step.item()  # nothing is clipped
    output = residual_sums(network)[-1][1](*(small.batch(2).abs() for _ in range(2)))
    assert torch.equal((output / step).round() * step, output)


class Single(nn.Module):
    """One sum, whose shortcut is the image, before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.sum = ResidualSum()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.sum(self.conv(self.first(x)), x))
        return y


def test_a_shortcut_with_negative_values_gets_signed_codes() -> None:
    torch.manual_seed(0)
    network = Single()
    quantize(network, small.scheme("quantizer=lsq", "residual_bits=8"))
    calibrate(network, small.batch(8))
    assert residual_sums(network)[0][1].signed_shortcut
    assert not residual_sums(quantized())[0][1].signed_shortcut
    restored = Single()
    quantize(restored, small.scheme("quantizer=lsq", "residual_bits=8"))
    restored.load_state_dict(network.state_dict(), strict=True)
    assert residual_sums(restored)[0][1].signed_shortcut


def test_a_failed_calibration_leaves_no_trace() -> None:
    network, x = small.network(), small.batch(8)
    quantize(network, small.scheme("quantizer=lsq", "residual_bits=8"))
    first = network.get_submodule(SUMS[0])
    hook = first.register_forward_pre_hook(lambda _, args: (args[0], -args[1] * math.inf))
    with pytest.raises(SqakdError):
        calibrate(network, x)
    hook.remove()
    fresh = small.network()
    quantize(fresh, small.scheme("quantizer=lsq", "residual_bits=8"))
    for quantizer in quantizers(network):
        quantizer.calibrated.fill_(False)
    calibrate(network, x)
    calibrate(fresh, x)
    assert not residual_sums(network)[0][1].signed_shortcut
    assert residual_sums(network)[0][1].covering_step is None


class Shared(nn.Module):
    """Two blocks with one module for both sums."""

    def __init__(self, total: nn.Module) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.sums = nn.ModuleList([total, total])

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs[0](x).relu()
        for conv, total in zip(self.convs[1:3], self.sums, strict=True):
            x = total(conv(x), x)
        y: Tensor = self.convs[3](x)
        return y


def test_blocks_that_share_a_module_share_its_twin() -> None:
    network = Shared(ResidualSum())
    quantize(network, small.scheme("quantizer=lsq", "residual_bits=8"))
    assert isinstance(network.sums[0], QuantResidualSum)
    assert network.sums[0] is network.sums[1]
    dequantize(network)
    assert type(network.sums[0]) is ResidualSum
    assert network.sums[0] is network.sums[1]


class Halved(ResidualSum):
    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        return super().forward(branch, shortcut) / 2


def test_another_sum_is_not_replaced() -> None:
    with pytest.raises(SqakdError, match="Shared has no module ResidualSum"):
        quantize(Shared(Halved()), small.scheme("quantizer=lsq", "residual_bits=8"))


class Linear(nn.Module):
    """Two sums without a ReLU, one after the other; the second shortcut has the codes of the first sum."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.sums = nn.ModuleList(ResidualSum(relu=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs[0](x)
        for conv, total in zip(self.convs[1:3], self.sums, strict=True):
            x = total(conv(x), x)
        y: Tensor = self.convs[3](x)
        return y


def test_sums_without_a_relu_are_signed_and_clip_nothing_of_the_calibration_batch() -> None:
    torch.manual_seed(0)
    network, x = Linear(), small.batch(8)
    quantize(network, small.scheme("quantizer=lsq", "residual_bits=8"))
    ends: list[float] = []
    real: list[Tensor] = []

    def look(module: nn.Module, args: tuple[Tensor, Tensor], output: Tensor) -> None:
        assert torch.equal(output, args[0] + args[1])  # real while the network is calibrated
        ends.extend(float(x.abs().max()) / 127 for x in (*args, output))
        real.append(output)

    hooks = [total.register_forward_hook(look) for _, total in residual_sums(network)]
    calibrate(network, x)
    for hook in hooks:
        hook.remove()
    (_, first), (_, second) = residual_sums(network)
    assert first.signed_shortcut
    assert second.signed_shortcut
    step = first.quantizer.step
    assert step.item() >= max(ends) * (1 - 1e-6)
    assert any(bool((output < 0).any()) for output in real)
    codes = first(real[0] / 2, real[0] / 2) / step
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
    assert float(codes.detach().min()) < 0
    assert torch.equal(second(torch.zeros_like(codes), codes.detach() * step), codes.detach() * step)
    dequantize(network)
    assert [total.relu for total in network.sums] == [False, False]


def test_a_saved_state_restores_the_same_outputs() -> None:
    trained, fresh = quantized().eval(), small.network(seed=1)
    quantize(fresh, small.scheme("quantizer=lsq", "residual_bits=8"))
    fresh.load_state_dict(trained.state_dict(), strict=True)
    x = small.batch(4, seed=5)
    assert torch.equal(fresh.eval()(x), trained(x))


def test_dequantize_puts_real_sums_back() -> None:
    network = small.network()
    state, x = network.state_dict(), small.batch(4)
    wanted = network.eval()(x)
    quantize(network, small.scheme("quantizer=lsq", "residual_bits=8"))
    dequantize(network)
    assert {type(network.get_submodule(name)) for name in SUMS} == {ResidualSum}
    assert network.state_dict().keys() == state.keys()
    assert torch.equal(network.eval()(x), wanted)


def test_compilation_needs_no_break() -> None:
    network = quantized().eval()
    explained = torch._dynamo.explain(network)(small.batch(4))
    assert explained.graph_break_count == 0


@pytest.mark.parametrize(("factor", "step"), [(0.0, "0"), (math.nan, "nan")])
def test_sums_without_finite_values_other_than_zero_are_refused(factor: float, step: str) -> None:
    network = Single()
    quantize(network, small.scheme("quantizer=lsq", "residual_bits=8"))
    network.sum.register_forward_pre_hook(lambda _, args: tuple(factor * x for x in args))
    with pytest.raises(SqakdError, match=f"residual sums need a step of {step}; expected finite"):
        calibrate(network, small.batch(8))


def test_a_sum_of_zeros_is_accepted_beside_others() -> None:
    network = small.network()
    quantize(network, small.scheme("quantizer=lsq", "residual_bits=8"))
    last = network.get_submodule(SUMS[-1])  # behind the last layer that is calibrated
    last.register_forward_pre_hook(lambda _, args: tuple(0 * x for x in args))
    calibrate(network, small.batch(8))
    assert residual_sums(network)[0][1].quantizer.step > 0


@pytest.mark.parametrize("bits", [0, 3, 9, 4.5, True, "8"])
def test_other_bits_are_refused(bits: Any) -> None:
    with pytest.raises(SqakdError, match=re.escape(f"residual_bits={bits!r}: expected a whole number from 4 to 8")):
        small.scheme("quantizer=lsq").__class__(**vars(small.scheme("quantizer=lsq")) | {"residual_bits": bits})


def test_shared_inputs_are_refused() -> None:
    with pytest.raises(Exception, match="residual_bits=8 is not compatible with outer=released"):
        small.scheme("quantizer=lsq_released", "quantizer.outer=released", "residual_bits=8")


def test_a_network_without_residual_sums_is_refused() -> None:
    network = VGG(blocks=[1, 1, 1, 1, 1], pools=3, num_classes=10)
    with pytest.raises(SqakdError, match="VGG has no module ResidualSum") as error:
        quantize(network, small.scheme("quantizer=lsq", "residual_bits=8"))
    assert "resnet20" in explain(error.value)

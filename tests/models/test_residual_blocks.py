"""Torchvision's residual networks with their sums as modules."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import Tensor, fx, nn
from torchvision import models

from sqakd.models.torchvision import torchvision_network
from sqakd.sums import ResidualSum

SUMS = {
    **{"resnet18": 8, "resnet50": 16, "regnet_x_400mf": 22, "regnet_y_400mf": 16},
    **{"mobilenet_v2": 10, "mobilenet_v3_small": 6, "efficientnet_b0": 9, "efficientnet_v2_s": 35},
}
LINEAR = ("mobilenet", "efficientnet")


def gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    torch.manual_seed(2)  # for stochastic depth and dropout
    return list(torch.autograd.grad(network(x).square().sum(), list(network.parameters())))


@pytest.mark.parametrize("arch", SUMS)
def test_values_gradients_and_names_are_those_of_torchvision(arch: str) -> None:
    torch.manual_seed(0)
    wanted = models.get_model(arch, num_classes=10)
    torch.manual_seed(0)
    network = torchvision_network(arch=arch, weights=None, num_classes=10)
    sums = [module for module in network.modules() if isinstance(module, ResidualSum)]
    assert len(sums) == SUMS[arch]
    assert {total.relu for total in sums} == {not arch.startswith(LINEAR)}
    assert list(network.state_dict()) == list(wanted.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for got, expected in zip(gradients(network, x), gradients(wanted, x), strict=True):
        assert torch.equal(got, expected)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), wanted.eval()(x))


@pytest.mark.parametrize("arch", SUMS)
def test_each_sum_with_two_operands_is_a_module(arch: str) -> None:
    """No addition of two tensors is left outside: every one that runs is a `ResidualSum`."""
    network = torchvision_network(arch=arch, weights=None, num_classes=10).eval()
    traced = fx.symbolic_trace(network)  # functions stay, modules of torch are calls
    assert sum(node.target in (operator.add, operator.iadd) for node in traced.graph.nodes) == SUMS[arch]
    calls: list[str] = []
    for module in network.modules():
        if isinstance(module, ResidualSum):
            module.register_forward_hook(lambda *_: calls.append("sum"))
    network(torch.randn(1, 3, 64, 64))
    assert len(calls) == SUMS[arch]


def test_other_networks_stay_as_they_are() -> None:
    network = torchvision_network(arch="shufflenet_v2_x0_5", weights=None, num_classes=10)
    assert not any(isinstance(module, ResidualSum) for module in network.modules())

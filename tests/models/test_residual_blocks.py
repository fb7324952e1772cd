"""Torchvision's residual networks with their sums as modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from sqakd.models.torchvision import torchvision_network
from sqakd.sums import ResidualSum


def gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(network(x).square().sum(), list(network.parameters())))


@pytest.mark.parametrize(("arch", "sums"), [("resnet18", 8), ("resnet50", 16)])
def test_values_gradients_and_names_are_those_of_torchvision(arch: str, sums: int) -> None:
    torch.manual_seed(0)
    wanted = models.get_model(arch, num_classes=10)
    torch.manual_seed(0)
    network = torchvision_network(arch=arch, weights=None, num_classes=10)
    assert sum(isinstance(module, ResidualSum) for module in network.modules()) == sums
    assert list(network.state_dict()) == list(wanted.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for got, expected in zip(gradients(network, x), gradients(wanted, x), strict=True):
        assert torch.equal(got, expected)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), wanted.eval()(x))


def test_other_networks_stay_as_they_are() -> None:
    network = torchvision_network(arch="mobilenet_v2", weights=None, num_classes=10)
    assert not any(isinstance(module, ResidualSum) for module in network.modules())

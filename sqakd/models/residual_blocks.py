"""Torchvision's residual blocks with their sum as a module, which quantization can find and round (`residual_bits`).

The blocks are those of ResNet, ResNeXt and Wide ResNet. Values, parameters and their names stay the same.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from sqakd.sums import ResidualSum


class SummingBasicBlock(BasicBlock):  # type: ignore[misc]  # torchvision has no types
    """Two convolutions beside a shortcut: [N, in, H, W] -> [N, out, H/stride, W/stride]."""

    sum: ResidualSum

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        total: Tensor = self.sum(branch, x if self.downsample is None else self.downsample(x))
        return total


class SummingBottleneck(Bottleneck):  # type: ignore[misc]  # torchvision has no types
    """Three convolutions beside a shortcut: [N, in, H, W] -> [N, out, H/stride, W/stride]."""

    sum: ResidualSum

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(branch)))))
        total: Tensor = self.sum(branch, x if self.downsample is None else self.downsample(x))
        return total


SUMMING: dict[type[nn.Module], type[nn.Module]] = {BasicBlock: SummingBasicBlock, Bottleneck: SummingBottleneck}


def use_sum_modules(network: nn.Module) -> None:
    """Turn each residual block of torchvision into one whose sum is a module, in place."""
    for module in list(network.modules()):
        if type(module) in SUMMING:
            module.__class__ = SUMMING[type(module)]
            module.add_module("sum", ResidualSum())

"""Torchvision's residual blocks with their sum as a module, which quantization can find and round (`residual_bits`).

The blocks are those of ResNet, ResNeXt, Wide ResNet and RegNet, whose sum ends in a ReLU, and those of MobileNet-V2, V3
and EfficientNet, whose sum has none. Values, parameters and their names stay the same.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import efficientnet, mobilenetv2, mobilenetv3, regnet, resnet

from sqakd.sums import ResidualSum


class SummingBasicBlock(resnet.BasicBlock):  # type: ignore[misc]  # torchvision has no types
    """Two convolutions beside a shortcut: [N, in, H, W] -> [N, out, H/stride, W/stride]."""

    sum: ResidualSum

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        total: Tensor = self.sum(branch, x if self.downsample is None else self.downsample(x))
        return total


class SummingBottleneck(resnet.Bottleneck):  # type: ignore[misc]  # torchvision has no types
    """Three convolutions beside a shortcut: [N, in, H, W] -> [N, out, H/stride, W/stride]."""

    sum: ResidualSum

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(branch)))))
        total: Tensor = self.sum(branch, x if self.downsample is None else self.downsample(x))
        return total


class SummingRegNetBlock(regnet.ResBottleneckBlock):  # type: ignore[misc]  # torchvision has no types
    """A bottleneck of RegNet beside a shortcut: [N, in, H, W] -> [N, out, H/stride, W/stride]."""

    sum: ResidualSum

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.sum(self.f(x), x if self.proj is None else self.proj(x))
        return total


class SummingMobileNetV2Block(mobilenetv2.InvertedResidual):  # type: ignore[misc]  # torchvision has no types
    """An inverted bottleneck beside its input: [N, C, H, W] -> [N, C, H, W]."""

    sum: ResidualSum

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.sum(self.conv(x), x)
        return total


class SummingMobileNetV3Block(mobilenetv3.InvertedResidual):  # type: ignore[misc]  # torchvision has no types
    """An inverted bottleneck with squeeze and excitation beside its input: [N, C, H, W] -> [N, C, H, W]."""

    sum: ResidualSum

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.sum(self.block(x), x)
        return total


class SummingMBConv(efficientnet.MBConv):  # type: ignore[misc]  # torchvision has no types
    """EfficientNet's block beside its input, dropped for some images in training: [N, C, H, W] -> [N, C, H, W]."""

    sum: ResidualSum

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.sum(self.stochastic_depth(self.block(x)), x)
        return total


class SummingFusedMBConv(efficientnet.FusedMBConv):  # type: ignore[misc]  # torchvision has no types
    """The block of EfficientNet-V2's first stages, as `SummingMBConv`: [N, C, H, W] -> [N, C, H, W]."""

    sum: ResidualSum

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.sum(self.stochastic_depth(self.block(x)), x)
        return total


# The block that replaces each block of torchvision.
WITH_RELU: dict[type[nn.Module], type[nn.Module]] = {
    resnet.BasicBlock: SummingBasicBlock,
    resnet.Bottleneck: SummingBottleneck,
    regnet.ResBottleneckBlock: SummingRegNetBlock,
}
LINEAR: dict[type[nn.Module], type[nn.Module]] = {
    mobilenetv2.InvertedResidual: SummingMobileNetV2Block,
    mobilenetv3.InvertedResidual: SummingMobileNetV3Block,
    efficientnet.MBConv: SummingMBConv,
    efficientnet.FusedMBConv: SummingFusedMBConv,
}


def use_sum_modules(network: nn.Module) -> None:
    """Turn each residual block of torchvision into one whose sum is a module, in place."""
    for module in list(network.modules()):
        if type(module) in WITH_RELU:
            module.__class__ = WITH_RELU[type(module)]
            module.add_module("sum", ResidualSum())
        elif type(module) in LINEAR and module.use_res_connect:  # other blocks of these networks have no shortcut
            module.__class__ = LINEAR[type(module)]
            module.add_module("sum", ResidualSum(relu=False))

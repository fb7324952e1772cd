"""Residual networks for 32x32 images: ResNet-20, 32, 44, 56.

Paper: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2
(https://arxiv.org/abs/1512.03385): three stages of 16, 32 and 64 channels, `blocks` basic blocks each,
parameter-free shortcuts (option A). Where this differs: a BatchNorm1d lies between the pooled features and the
classifier, as in the code of SQAKD and EWGS.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.numbers import check_whole
from sqakd.sums import ResidualSum

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """A residual block, relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)): [N, in, H, W] -> [N, out, H/stride, W/stride].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity() if stride == 1 else Subsample(stride, out_channels - in_channels)
        self.sum = ResidualSum()

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        total: Tensor = self.sum(out, self.shortcut(x))
        return total


class Subsample(nn.Module):
    """The shortcut of option A, which has no parameters: [N, C, H, W] -> [N, C + extra, H/stride, W/stride].

    Args:
        stride: keep every `stride`-th row and column.
        extra: zero channels to add, half of them before the input's channels and half after.
    """

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, extra

    def forward(self, x: Tensor) -> Tensor:
        before = self.extra // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))


class CifarResNet(nn.Module):
    """A residual network from images [N, 3, H, W] (H = W = 32 in the papers) to logits [N, num_classes].

    Args:
        blocks: basic blocks per stage; the depth is 6 * blocks + 2 (3 gives ResNet-20, 5 gives ResNet-32).
        num_classes: number of classes.
    """

    def __init__(self, *, blocks: int, num_classes: int) -> None:
        super().__init__()
        check_whole("blocks", blocks)
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], blocks, stride=1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks, stride=2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks, stride=2)
        self.bn2: nn.Module = nn.BatchNorm1d(WIDTHS[2])
        self.linear = nn.Linear(WIDTHS[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        pooled = x.mean(dim=(2, 3))
        logits: Tensor = self.linear(self.bn2(pooled))
        return logits


class PlainCifarResNet(CifarResNet):
    """The network without the batch norm after pooling, as in the paper and in most published weights.

    The names of the tensors are those of https://github.com/akamaster/pytorch_resnet_cifar10.

    Args:
        blocks: basic blocks per stage.
        num_classes: number of classes.
    """

    def __init__(self, *, blocks: int, num_classes: int) -> None:
        super().__init__(blocks=blocks, num_classes=num_classes)
        self.bn2 = nn.Identity()  # a class of its own, because a new argument would change the identity of old runs


def _stage(in_channels: int, out_channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))

"""VGG networks with batch norm and one linear layer, as SQAKD trains them: VGG-8, 11, 13, 16, 19.

Paper: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015
(https://arxiv.org/abs/1409.1556): five stages of 3x3 convolutions.

Where this differs, following SQAKD: average pooling and a single linear layer replace the three large linear layers,
there is no dropout, and only the first stages end in a max pooling. SQAKD has three such stages, for CIFAR as well as
for Tiny-ImageNet at 224x224; images 64 pixels high need four.

The parameters have the names of SQAKD's CIFAR checkpoints, so those checkpoints load.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.errors import SqakdError

WIDTHS = (64, 128, 256, 512, 512)


class ConvBlock(nn.Module):
    """A block relu(bn(conv(x))): [N, in, H, W] -> [N, out, H, W].

    The convolution has a bias, although batch norm makes it redundant, because SQAKD's checkpoints contain one.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv2d(x)))


class VGG(nn.Module):
    """A VGG network from images [N, 3, H, W] to logits [N, num_classes].

    Args:
        blocks: number of convolutions of each of the five stages; [1, 1, 1, 1, 1] gives VGG-8, [2, 2, 2, 2, 2] VGG-13.
        pools: number of stages, from the first, that end in a 2x2 max pooling.
        num_classes: number of classes.

    Raises:
        SqakdError: if `blocks` is not five positive numbers, or `pools` is not from 0 to 5.
    """

    def __init__(self, *, blocks: Sequence[int], pools: int, num_classes: int) -> None:
        super().__init__()
        if len(blocks) != len(WIDTHS) or min(blocks) < 1:
            raise SqakdError(f"blocks={list(blocks)}: expected five numbers >= 1, e.g. [1, 1, 2, 2, 2] for VGG-11")
        if not 0 <= pools <= len(WIDTHS):
            raise SqakdError(f"pools={pools}: expected 0 to {len(WIDTHS)}; the papers' networks have 3")
        self.pools = pools
        self.layer0 = _stage(3, WIDTHS[0], blocks[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[1], blocks[1])
        self.layer2 = _stage(WIDTHS[1], WIDTHS[2], blocks[2])
        self.layer3 = _stage(WIDTHS[2], WIDTHS[3], blocks[3])
        self.layer4 = _stage(WIDTHS[3], WIDTHS[4], blocks[4])
        self.classifier = nn.Linear(WIDTHS[4], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        stages = (self.layer0, self.layer1, self.layer2, self.layer3, self.layer4)
        for i, stage in enumerate(stages):
            x = stage(x)
            if i < self.pools:
                x = F.max_pool2d(x, 2)
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    inner = (ConvBlock(out_channels, out_channels) for _ in range(blocks - 1))
    return nn.Sequential(ConvBlock(in_channels, out_channels), *inner)

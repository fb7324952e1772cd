"""Networks for the export's tests: those of the tables, quantized, calibrated and made to look trained."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from functools import partial

import small
import torch
from hydra.utils import instantiate
from quantizer_cases import scheme_of
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.models.resnet import BasicBlock
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.quantization.layers import QuantLayer
from sqakd.quantization.quantizers.base import Quantizer


def convert(layer: nn.Module, method: str, bits: int, *, per_channel: bool = False) -> QuantLayer:
    """Return the quantized twin of one layer, not calibrated."""
    scheme = dataclasses.replace(scheme_of(method), per_channel=per_channel)
    return scheme.convert(layer, bits=bits)


def expected_refusal(layer: QuantLayer) -> str | None:
    """Return the topic of the error for a layer that 8-bit integers cannot compute; None for all other layers."""
    probe = torch.linspace(-3, 3, 64, dtype=layer.weight.dtype)
    if depends_on_neighbours(layer.input_quantizer, probe):
        return "export.depends_on_batch"
    if int(layer.weight_quantizer.grid().max()) > 127:
        return "export.weights_need_nine_bits"
    return None


def depends_on_neighbours(quantizer: Quantizer, x: Tensor) -> bool:
    """Return whether the codes of `x` change when larger values are in the same batch."""
    alone = [quantizer.codes(size * x).integers for size in (1.0, 0.1)]
    crowded = [quantizer.codes(torch.cat([size * x, 50 * x])).integers[: len(x)] for size in (1.0, 0.1)]
    return not all(torch.equal(a, b) for a, b in zip(alone, crowded, strict=True))


# The smallest images for which no feature map of the network shrinks to one pixel.
NETWORKS: dict[str, tuple[list[str], int]] = {
    "resnet8": (["model=resnet20", "model.net.blocks=1"], 16),
    "resnet20": (["model=resnet20"], 16),
    "resnet32": (["model=resnet32"], 16),
    "vgg8": (["model=vgg8"], 16),
    "vgg11": (["model=vgg11"], 16),
    "vgg13": (["model=vgg13"], 16),
    "resnet18": (["model=resnet18"], 48),
    "mobilenet_v2": (["model=mobilenet_v2"], 48),
    "shufflenet_v2": (["model=shufflenet_v2_x0_5"], 48),
    "squeezenet": (["model=squeezenet1_0"], 48),
    "resnet50": (["model=torchvision", "model.arch=resnet50"], 48),
}
# Further networks, which only single tests export.
FURTHER = NETWORKS | {"efficientnet_b0": (["model=torchvision", "model.arch=efficientnet_b0"], 48)}
CLASSES = 10


def images_for(name: str, n: int, seed: int = 5) -> Tensor:
    """Return normalised images with some structure, [n, 3, size, size]."""
    size = FURTHER[name][1]
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 3, 4, 4, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bilinear") + 0.1 * torch.randn(
        n, 3, size, size, generator=generator
    )


def make(name: str, *overrides: str, bits: int) -> nn.Module:
    """Return a quantized and calibrated network.

    Batch norms are moved away from their initial values, as training moves them: some factors are negative and one is
    zero.
    """
    config = small.config(*FURTHER[name][0])
    torch.manual_seed(0)
    network: nn.Module = instantiate(config.model.net, num_classes=CLASSES)
    generator = torch.Generator().manual_seed(3)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        sign = torch.where(torch.rand(norm.num_features, generator=generator) < 0.2, -1.0, 1.0)
        norm.weight.data.copy_(sign * (0.5 + torch.rand(norm.num_features, generator=generator)))
        norm.bias.data.copy_(0.3 * torch.randn(norm.num_features, generator=generator))
        norm.momentum = 0.5
    if norms:
        norms[1].weight.data[0] = 0.0
    scheme = small.scheme(*overrides)
    fixed = dataclasses.replace(
        scheme, weight=partial(scheme.weight, bits=bits), input=partial(scheme.input, bits=bits)
    )
    quantize(network, fixed, first=config.model.first)
    calibrate(network, images_for(name, 8, seed=1))
    with torch.no_grad():
        for seed in range(3):
            network.train()(images_for(name, 8, seed=seed))
    return network.eval()


def chain(*overrides: str) -> nn.Module:
    """Return a network of four layers in a row, quantized and calibrated; the smallest of them all.

    The two layers in the middle have a bias, and no input is negative.
    """
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {"first": nn.Conv2d(3, 16, 3, padding=1), "relu1": nn.ReLU()}
    layers |= {"second": nn.Conv2d(16, 16, 3, stride=2, padding=1), "norm": nn.BatchNorm2d(16), "relu2": nn.ReLU()}
    layers |= {"third": nn.Conv2d(16, 64, 3, padding=1), "relu3": nn.ReLU()}
    layers |= {"flat": nn.Flatten(), "last": nn.Linear(64 * 4 * 4, CLASSES)}
    return _moved(nn.Sequential(OrderedDict(layers)), *overrides)


class TwoBlocks(nn.Module):
    """A residual network of two blocks: one keeps the size of its input, the other halves it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2 = BasicBlock(16, 16, 1), BasicBlock(16, 32, 2)
        self.linear = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def two_blocks(*overrides: str) -> nn.Module:
    """Return the residual network, quantized and calibrated."""
    torch.manual_seed(0)
    return _moved(TwoBlocks(), *overrides)


def _moved(network: nn.Module, *overrides: str) -> nn.Module:
    """Quantize and calibrate a network for 8x8 images, with statistics of batch norm that a few batches have moved."""
    quantize(network, small.scheme(*overrides))
    calibrate(network, small.batch(8))
    with torch.no_grad():
        for seed in range(3):
            network.train()(small.batch(8, seed))
    return network.eval()

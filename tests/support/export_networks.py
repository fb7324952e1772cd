"""What the export's tests lower: networks of the tables, quantized, calibrated and made to look trained."""

from __future__ import annotations

import dataclasses
from functools import partial

import small
import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn import functional as F

from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
from sqakd.quantization.layers import QuantLayer
from sqakd.quantization.quantizers.base import Quantizer


def convert(layer: nn.Module, method: str, bits: int, *, per_channel: bool = False) -> QuantLayer:
    """The quantized twin of one layer, not calibrated."""
    words = [f"quantizer={method}", f"quantizer.per_channel={str(per_channel).lower()}"]
    return small.scheme(*words).convert(layer, bits=bits)


def expected_refusal(layer: QuantLayer) -> str | None:
    """Which words the export uses for a layer that integers of 8 bits cannot stand for; None where they can."""
    probe = torch.linspace(-3, 3, 64, dtype=layer.weight.dtype)
    if depends_on_neighbours(layer.input_quantizer, probe):
        return "by the batch it comes in"
    if int(layer.weight_quantizer.grid().max()) > 127:
        return "type regrid=true"
    return None


def depends_on_neighbours(quantizer: Quantizer, x: Tensor) -> bool:
    alone = [quantizer.codes(size * x).integers for size in (1.0, 0.1)]
    crowded = [quantizer.codes(torch.cat([size * x, 50 * x])).integers[: len(x)] for size in (1.0, 0.1)]
    return not all(torch.equal(a, b) for a, b in zip(alone, crowded, strict=True))


# Smallest images that each network of the paper's tables takes without a map of one pixel.
NETWORKS: dict[str, tuple[list[str], int]] = {
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
CLASSES = 10


def images_for(name: str, n: int, seed: int = 5) -> Tensor:
    """Normalised images with some structure, [n, 3, size, size]."""
    size = NETWORKS[name][1]
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 3, 4, 4, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bilinear") + 0.1 * torch.randn(
        n, 3, size, size, generator=generator
    )


def make(name: str, *words: str, bits: int) -> nn.Module:
    """Quantized and calibrated; batch norms moved as in training, some factors negative and one of them zero."""
    config = small.config(*NETWORKS[name][0])
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
    scheme = small.scheme(*words)
    fixed = dataclasses.replace(
        scheme, weight=partial(scheme.weight, bits=bits), input=partial(scheme.input, bits=bits)
    )
    quantize(network, fixed, first=config.model.first)
    calibrate(network, images_for(name, 8, seed=1))
    with torch.no_grad():
        for seed in range(3):
            network.train()(images_for(name, 8, seed=seed))
    return network.eval()


@torch.no_grad()
def agreement(lowered: nn.Module, network: nn.Module, x: Tensor) -> float:
    """Largest difference of the logits, relative to their spread."""
    got, wanted = lowered(x), network.eval()(x)
    assert got.dtype == wanted.dtype
    return float((got - wanted).abs().max() / wanted.std())

"""The VGG networks: float and EWGS-quantized networks against reference numbers, and initialisation."""

from __future__ import annotations

import golden_data as golden
import numpy as np
import pytest
import torch
from golden_networks import check_float, check_quantized, ewgs_scheme
from torch import nn

from sqakd.errors import SqakdError
from sqakd.models.vgg import VGG
from sqakd.quantization.convert import quantize
from sqakd.quantization.parameters import split_parameters

BLOCKS = {
    "vgg8": [1, 1, 1, 1, 1],
    "vgg11": [1, 1, 2, 2, 2],
    "vgg13": [2, 2, 2, 2, 2],
    "vgg16": [2, 2, 3, 3, 3],
    "vgg19": [2, 2, 4, 4, 4],
}


def make(name: str) -> VGG:
    classes = int(golden.load(f"06_cifar_{name}_bn_fp")["num_classes"])
    return VGG(blocks=BLOCKS[name], pools=3, num_classes=classes)


@pytest.mark.parametrize("name", ["vgg8", "vgg13"])
def test_the_float_network_equals_the_reference(name: str) -> None:
    check_float(make(name), f"{name}_bn")


@pytest.mark.parametrize("name", ["vgg8", "vgg13"])
def test_the_quantized_network_equals_the_reference(name: str) -> None:
    check_quantized(make(name), f"{name}_bn", first=["layer0"], tolerance=1e-4)


@pytest.mark.parametrize(
    ("name", "ten_classes", "hundred_classes", "layers"),
    [
        ("vgg11", 9_231_114, 9_277_284, 7),
        ("vgg16", 14_728_266, 14_774_436, 11),
        ("vgg19", 20_040_522, 20_086_692, 14),
    ],
)
def test_networks_without_reference_arrays_have_the_published_sizes(
    name: str, ten_classes: int, hundred_classes: int, layers: int
) -> None:
    for classes, count in ((10, ten_classes), (100, hundred_classes)):
        with torch.device("meta"):
            model = VGG(blocks=BLOCKS[name], pools=3, num_classes=classes)
            assert sum(p.numel() for p in model.parameters()) == count
            assert len(quantize(model, ewgs_scheme(2), first=["layer0"])) == layers
        network, _ = split_parameters(model)
        assert sum(p.numel() for p in network) == count


def test_weights_have_the_documented_initial_distribution() -> None:
    """Convolutions start as N(0, 2 / (9 * outputs)), the classifier as N(0, 0.01^2), and biases as 0."""
    model = make("vgg8")
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    for layer in convolutions[1:]:
        assert float(layer.weight.detach().std()) == pytest.approx(np.sqrt(2 / (9 * layer.out_channels)), rel=0.02)
    assert float(model.classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    biases = [p for name, p in model.named_parameters() if name.endswith(("conv2d.bias", "classifier.bias"))]
    assert [bool(bias.any()) for bias in biases] == [False] * 6


def test_three_poolings_of_32_pixels_and_four_of_64_leave_a_4x4_map() -> None:
    sizes: list[int] = []
    for pools, size in ((3, 32), (4, 64)):
        model = VGG(blocks=BLOCKS["vgg8"], pools=pools, num_classes=10).eval()
        model.layer4.register_forward_hook(lambda _, __, output: sizes.append(output.shape[-1]))
        model(torch.zeros(1, 3, size, size))
    assert sizes == [4, 4]


@pytest.mark.parametrize(("blocks", "pools"), [([1, 1, 1], 3), ([1, 1, 0, 1, 1], 3), ([1] * 5, 6)])
def test_invalid_stages_are_refused(blocks: list[int], pools: int) -> None:
    with pytest.raises(SqakdError, match=r"(blocks|pools)=.*expected"):
        VGG(blocks=blocks, pools=pools, num_classes=10)

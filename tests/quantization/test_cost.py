"""Size and bit-operations against counts by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import small
import torch
from torch import Tensor, nn

from sqakd.models.resnet import CifarResNet
from sqakd.quantization.convert import quantize
from sqakd.quantization.cost import cost

IMAGE = (3, 8, 8)
# Multiply-adds of the three layers of `small_net` for one image: outputs times inputs of each output.
CONV1, CONV2, LINEAR = (4 * 8 * 8) * (3 * 3 * 3), (6 * 4 * 4) * (2 * 3 * 3), 10 * (6 * 4 * 4)
# Weights, biases and batch norm of each layer.
PARAMETERS = (4 * 27 + 4) + (2 * 4) + (6 * 18) + (10 * 96 + 10)


def small_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def test_cost_of_a_float_network() -> None:
    measured = cost(small_net(), IMAGE)
    assert measured.parameters == PARAMETERS
    assert measured.packed_bytes == 4 * PARAMETERS
    assert measured.bit_operations == 32 * 32 * (CONV1 + CONV2 + LINEAR)


@pytest.mark.parametrize(("w_bits", "a_bits"), [(1, 1), (2, 2), (3, 5), (8, 8)])
def test_cost_with_a_quantized_inner_layer(w_bits: int, a_bits: int) -> None:
    model = small_net()
    quantize(model, small.scheme("quantizer=ewgs", f"w_bits={w_bits}", f"a_bits={a_bits}"))
    measured = cost(model, IMAGE)
    assert measured.parameters == PARAMETERS + 5
    weights = 6 * 18
    bits = weights * w_bits + (PARAMETERS + 5 - weights) * 32
    assert measured.packed_bytes == -(-bits // 8)
    assert measured.bit_operations == 32 * 32 * (CONV1 + LINEAR) + w_bits * a_bits * CONV2


def test_cost_with_outer_layers_of_eight_bits() -> None:
    model = small_net()
    quantize(model, replace(small.scheme("quantizer=lsq", "bits=2"), first_last="8"))
    measured = cost(model, IMAGE)
    assert measured.parameters == PARAMETERS + 3 * 2
    outer, inner = 4 * 27 + 10 * 96, 6 * 18
    bits = outer * 8 + inner * 2 + (PARAMETERS + 6 - outer - inner) * 32
    assert measured.packed_bytes == bits // 8
    assert measured.bit_operations == 64 * (CONV1 + LINEAR) + 4 * CONV2


def count_resnet(blocks: int, classes: int) -> tuple[int, int]:
    """Return parameters and multiply-adds of a ResNet for 32x32 images, from the widths in its paper."""
    parameters, operations = 3 * 9 * 16 + 2 * 16, 3 * 9 * 16 * 32 * 32
    width = 16
    for stage, out in enumerate((16, 32, 64)):
        for inputs in (width, *[out] * (2 * blocks - 1)):
            parameters += inputs * 9 * out + 2 * out
            operations += inputs * 9 * out * (32 // 2**stage) ** 2
        width = out
    return parameters + 2 * 64 + 64 * classes + classes, operations + 64 * classes


@pytest.mark.parametrize(("blocks", "classes"), [(3, 10), (3, 100), (5, 100)])
def test_cost_of_the_networks_for_cifar(blocks: int, classes: int) -> None:
    parameters, operations = count_resnet(blocks, classes)
    model = CifarResNet(blocks=blocks, num_classes=classes)
    measured = cost(model, (3, 32, 32))
    assert (measured.parameters, measured.bit_operations) == (parameters, 1024 * operations)
    quantize(model, small.scheme("quantizer=ewgs", "bits=2"))
    outer = 3 * 9 * 16 * 32 * 32 + 64 * classes
    assert cost(model, (3, 32, 32)).bit_operations == 1024 * outer + 4 * (operations - outer)


def test_resnet20_has_the_size_of_its_paper() -> None:
    """The paper has 0.27 million parameters and 41 million multiply-adds."""
    measured = cost(CifarResNet(blocks=3, num_classes=10), (3, 32, 32))
    assert round(measured.parameters / 1e6, 2) == 0.27
    assert round(measured.bit_operations / 1024 / 1e6) == 41


@pytest.mark.parametrize("training", [True, False])
def test_measuring_does_not_change_the_network(training: bool) -> None:
    model = small.quantized("quantizer=ewgs").train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: list[Tensor] = []
    model.linear.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert cost(model, small.SHAPE) == cost(model, small.SHAPE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {module.training for module in model.modules()} == {training}
    assert not any(tensor.requires_grad for tensor in seen)
    assert [len(module._forward_hooks) for module in model.modules() if isinstance(module, nn.Conv2d)] == [0] * 7

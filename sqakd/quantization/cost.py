"""What a network costs once deployed: size with its weights packed, and bit operations per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sqakd.quantization.layers import QuantLayer

FLOAT_BITS = 32


@dataclass(frozen=True)
class Cost:
    """Of one network.

    Attributes:
        parameters: number of parameters, quantizers' included.
        packed_bytes: weights of quantized layers at their bits, everything else at 32.
        bit_operations: sum over layers of multiply-adds * weight bits * input bits, for one image.
    """

    parameters: int
    packed_bytes: int
    bit_operations: int


@torch.no_grad()
def cost(model: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
    """Measure by running the network on one black image.

    Args:
        model: quantized or float.
        image_shape: channels, height, width.
    """
    operations = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal operations
        assert isinstance(layer.weight, Tensor)
        bits = (FLOAT_BITS, FLOAT_BITS)
        if isinstance(layer, QuantLayer):
            bits = (layer.weight_quantizer.bits, layer.input_quantizer.bits)
        multiply_adds = output.numel() * layer.weight[0].numel()
        operations += multiply_adds * bits[0] * bits[1]

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training, device = model.training, next(model.parameters()).device
    try:
        model.eval()(torch.zeros(1, *image_shape, device=device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    saved = sum(
        layer.weight.numel() * (FLOAT_BITS - layer.weight_quantizer.bits)
        for layer in layers
        if isinstance(layer, QuantLayer)
    )
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, (parameters * FLOAT_BITS - saved + 7) // 8, operations)

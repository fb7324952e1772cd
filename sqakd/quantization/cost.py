"""Cost of a deployed network: its size with packed weights, and its bit-operations per image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sqakd.quantization.layers import QuantLayer, quant_layers
from sqakd.quantization.probe import hooks_removed, run_on_black_image

FLOAT_BITS = 32


@dataclass(frozen=True)
class Cost:
    """Size and arithmetic of one network.

    Attributes:
        parameters: number of parameters, including those of the quantizers.
        packed_bytes: bytes of all parameters, with the weights of quantized layers at their bits and the rest at 32.
        bit_operations: for one image, the sum over layers of multiply-adds * weight bits * input bits.
    """

    parameters: int
    packed_bytes: int
    bit_operations: int


def cost(model: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
    """Measure the cost of a network by running it once.

    Args:
        model: quantized or float network.
        image_shape: channels, height, width.
    """
    operations = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal operations
        assert isinstance(layer.weight, Tensor)
        w_bits, a_bits = FLOAT_BITS, FLOAT_BITS
        if isinstance(layer, QuantLayer):
            w_bits, a_bits = (quantizer.bits for quantizer in layer.quantizers)
        # Each output element is a sum over one output channel's weights.
        multiply_adds = output.numel() * layer.weight[0].numel()
        operations += multiply_adds * w_bits * a_bits

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with hooks_removed(layer.register_forward_hook(count) for layer in layers):
        run_on_black_image(model, image_shape)
    saved_bits = sum(
        layer.weight.numel() * (FLOAT_BITS - layer.weight_quantizer.bits) for _, layer in quant_layers(model)
    )
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, (parameters * FLOAT_BITS - saved_bits + 7) // 8, operations)

"""Parameters of a quantized network in two groups: those of the network and those of its quantizers.

The recipe gives each group a learning rate and a weight decay of its own.
"""

from __future__ import annotations

from torch import nn

from sqakd.quantization.layers import quant_layers, quantizers
from sqakd.quantization.residual import residual_sums


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the network's parameters and the quantizers' parameters, output scales included.

    The module that owns a parameter decides, not the parameter's name. The order is part of every checkpoint, because
    optimizers number their parameters.

    Args:
        model: quantized or float; a float network has no parameters of the second kind.

    Example:
        >>> network, quantizer = split_parameters(nn.Linear(2, 2))
        >>> len(network), len(quantizer)
        (2, 0)
    """
    quantizer: dict[nn.Parameter, None] = {}  # a dict as an ordered set
    for _, layer in quant_layers(model):
        if layer.output_scale is not None:
            quantizer[layer.output_scale] = None
        for owner in layer.quantizers:
            quantizer.update(dict.fromkeys(owner.parameters()))
    for _, module in residual_sums(model):
        quantizer.update(dict.fromkeys(module.parameters()))
    network = [p for p in model.parameters() if p not in quantizer]
    return network, list(quantizer)


def weight_decays(model: nn.Module) -> dict[nn.Parameter, float]:
    """Return the weight decay of each quantizer parameter that has one of its own."""
    return {p: quantizer.decay for quantizer in quantizers(model) if quantizer.decay for p in quantizer.parameters()}

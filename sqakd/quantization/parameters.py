"""The parameters of a quantized network in two groups: the network's own and those of its quantizers."""

from __future__ import annotations

from torch import nn

from sqakd.quantization.layers import QuantLayer
from sqakd.quantization.quantizers.base import Quantizer


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(network parameters, quantizer parameters), told apart by the module that owns them, not by name."""
    quantizer: dict[nn.Parameter, None] = {}
    for module in model.modules():
        if isinstance(module, Quantizer):
            quantizer.update(dict.fromkeys(module.parameters()))
        elif isinstance(module, QuantLayer) and module.output_scale is not None:
            quantizer[module.output_scale] = None
    network = [p for p in model.parameters() if p not in quantizer]
    return network, list(quantizer)


def weight_decays(model: nn.Module) -> dict[nn.Parameter, float]:
    """Quantizer parameters that have a weight decay of their own, with it."""
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer)]
    return {p: quantizer.decay for quantizer in quantizers if quantizer.decay for p in quantizer.parameters()}

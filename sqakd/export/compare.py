"""Comparison of an integer network with the trained one, layer by layer.

A single code that rounds the other way changes everything behind it, which hides where differences arise. Here the
trained network gets, at the input of each layer, the codes of the integer network. So every difference that is counted
arises between two layers, and none comes from earlier layers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sqakd.export.modules import IntegerLayer
from sqakd.export.stored import StoredInput
from sqakd.quantization.layers import quant_layers


@torch.no_grad()
def code_differences(lowered: nn.Module, network: nn.Module, x: Tensor) -> tuple[dict[str, float], float]:
    """Return the share of input codes that differ, by layer, and the largest difference between two logits.

    The difference of the logits is relative to the standard deviation of the trained network's logits. A layer that
    runs several times has the largest of its shares.

    Args:
        lowered: integer network made from `network` by `lower`.
        network: quantized and calibrated.
        x: normalised images [N, C, H, W].
    """
    recorded: dict[str, list[tuple[Tensor, StoredInput]]] = defaultdict(list)
    calls: dict[str, int] = defaultdict(int)
    shares: dict[str, list[float]] = defaultdict(list)

    def record(layer: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(layer, IntegerLayer)
        recorded[layer.name].append((args[0], layer.stored))

    def compare(name: str) -> Callable[..., Any]:
        def hook(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
            codes, stored = recorded[name][calls[name]]
            calls[name] += 1
            input = stored.input
            level = torch.div(codes.double(), input.gap) + stored.base
            wanted = layer.input_quantizer.codes(args[0]).integers  # type: ignore[union-attr, operator]
            shares[name].append(float((input.gap * level - input.zero_point != wanted).double().mean()))
            return (input.value(level).to(args[0].dtype),)

        return hook

    layers = [module for module in lowered.modules() if isinstance(module, IntegerLayer)]
    hooks = [layer.register_forward_pre_hook(record) for layer in layers]
    hooks += [layer.register_forward_pre_hook(compare(name)) for name, layer in quant_layers(network)]
    try:
        got, wanted = lowered(x), network.eval()(x)  # in this order: the second run reads what the first recorded
    finally:
        for hook in hooks:
            hook.remove()
    return {name: max(share) for name, share in shares.items()}, float((got - wanted).abs().max() / wanted.std())

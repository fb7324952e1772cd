"""Where an integer network differs from the trained one, layer by layer.

A single code that rounds the other way changes everything behind it, which hides where it came from. Here the trained
network is given, at the input of each layer, the codes of the integer network: every difference that is counted was
made by the calls between two layers, and by nothing before them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sqakd.export.modules import IntegerLayer, Stored
from sqakd.quantization.layers import quant_layers


@torch.no_grad()
def code_differences(lowered: nn.Module, network: nn.Module, x: Tensor) -> tuple[dict[str, float], float]:
    """Share of input codes that differ, by layer; and the largest difference of the logits, relative to their spread.

    Args:
        lowered: made of `network` by `lower`.
        network: quantized and calibrated.
        x: normalised images [N, C, H, W].
    """
    seen: dict[str, list[tuple[Tensor, Stored]]] = defaultdict(list)

    def remember(layer: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(layer, IntegerLayer)
        seen[layer.name].append((args[0], layer.stored))

    def judge(name: str) -> Callable[..., Any]:
        def before(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
            codes, stored = seen[name][calls[name]]
            calls[name] += 1
            spec = stored.spec
            level = torch.div(codes.double(), spec.gap) + stored.base
            wanted = layer.input_quantizer.codes(args[0]).integers  # type: ignore[union-attr, operator]
            shares[name].append(float((spec.gap * level - spec.zero_point != wanted).double().mean()))
            return (spec.value(level).to(args[0].dtype),)

        return before

    calls: dict[str, int] = defaultdict(int)
    shares: dict[str, list[float]] = defaultdict(list)
    layers = [module for module in lowered.modules() if isinstance(module, IntegerLayer)]
    hooks = [layer.register_forward_pre_hook(remember) for layer in layers]
    hooks += [layer.register_forward_pre_hook(judge(name)) for name, layer in quant_layers(network)]
    try:
        got, wanted = lowered(x), network.eval()(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: max(share) for name, share in shares.items()}, float((got - wanted).abs().max() / wanted.std())

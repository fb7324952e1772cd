"""Outputs and inputs of named layers, by forward hook: networks never know of it.

A tap is the name of a module, for its output ("layer2"), or the same with ":input" for its first input ("bn2:input").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches

from torch import Tensor, nn

INPUT = ":input"


class Features:
    """Keeps what a network's taps saw in its latest forward pass.

    Args:
        model: the network; its hooks stay on it.
        taps: names of modules, with ":input" where the input is meant.
        key: what to type to choose other taps, for the message.

    Raises:
        ValueError: if the network has no module of that name.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> features = Features(network, ["0", "0:input"], key="model.feature_layers")
        >>> _ = network(torch.zeros(1, 2))
        >>> [tuple(feature.shape) for feature in features.take()]
        [(1, 3), (1, 2)]
    """

    def __init__(self, model: nn.Module, taps: Sequence[str], *, key: str) -> None:
        self.taps = list(taps)
        self.seen: dict[str, Tensor] = {}
        modules = dict(model.named_modules())
        for tap in self.taps:
            name = tap.removesuffix(INPUT)
            if name not in modules or not name:
                close = get_close_matches(name, modules) or [n for n in modules if n and "." not in n]
                raise ValueError(
                    f"{key}: the network has no layer {name!r}; it has, for instance, {', '.join(close)}"
                    f" (NAME for a layer's output, NAME{INPUT} for its input)"
                )
            if tap.endswith(INPUT):
                modules[name].register_forward_pre_hook(self._keep_input(tap))
            else:
                modules[name].register_forward_hook(self._keep_output(tap))

    def _keep_input(self, tap: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.seen[tap] = args[0]

        return hook

    def _keep_output(self, tap: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            self.seen[tap] = output

        return hook

    def take(self) -> list[Tensor]:
        """What was seen, in the order of the taps; it is forgotten here, so that no activation outlives its step."""
        features = [self.seen[tap] for tap in self.taps]
        self.seen.clear()
        return features

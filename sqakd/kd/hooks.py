"""Features of a network, recorded by forward hooks, so that networks need no code for distillation.

A tap is a point of a network where a feature is read. "layer2" is the output of the module layer2; "bn2:input" is the
first input of the module bn2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sqakd.errors import SqakdError

INPUT = ":input"


class Features:
    """Recorder of the features at a network's taps during its latest forward pass.

    Args:
        model: the network. The hooks stay registered on it until `remove`.
        taps: names of modules; the suffix ":input" selects a module's first input instead of its output.
        owner: name of the network in error messages, such as "student".

    Raises:
        SqakdError: if the network has no module of that name.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> features = Features(network, ["0", "0:input"])
        >>> _ = network(torch.zeros(1, 2))
        >>> [tuple(feature.shape) for feature in features.take()]
        [(1, 3), (1, 2)]
    """

    def __init__(self, model: nn.Module, taps: Sequence[str], *, owner: str = "network") -> None:
        self.taps = list(taps)
        self.recorded: dict[str, Tensor] = {}
        self.handles: list[RemovableHandle] = []
        modules = dict(model.named_modules())
        for tap in self.taps:
            name = tap.removesuffix(INPUT)
            if name not in modules or not name:  # the empty name is the network itself
                close = get_close_matches(name, modules) or [n for n in modules if n and "." not in n]
                raise SqakdError(
                    f"the {owner} has no layer {name!r}; similar or top-level layers: {', '.join(close)} (NAME is a"
                    f" layer's output, NAME{INPUT} its input)",
                    topic="kd.layer",
                )
        for tap in self.taps:  # no hook stays on a network that is refused
            module = modules[tap.removesuffix(INPUT)]
            if tap.endswith(INPUT):
                handle = module.register_forward_pre_hook(self._record_input(tap))
            else:
                handle = module.register_forward_hook(self._record_output(tap))
            self.handles.append(handle)

    def _record_input(self, tap: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.recorded[tap] = args[0]

        return hook

    def _record_output(self, tap: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            self.recorded[tap] = output

        return hook

    def take(self) -> list[Tensor]:
        """Return the recorded features in the order of `taps`, and forget them.

        They are forgotten so that no activation outlives its step and occupies memory in the next one.
        """
        features = [self.recorded[tap] for tap in self.taps]
        self.recorded.clear()
        return features

    def remove(self) -> None:
        """Take the hooks off the network, and forget what they recorded."""
        for handle in self.handles:
            handle.remove()
        self.recorded.clear()

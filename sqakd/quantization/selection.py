"""Which layers of a float network can be quantized, which are its first and last, and what has to stay float."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import nn

# These read the weights of the layers inside them without calling the layers, always or in evaluation.
OPAQUE = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


@dataclass(frozen=True)
class Selection:
    """Parts of one network, in the order in which they are registered.

    Attributes:
        layers: name of each layer that can be quantized.
        first: the first layers among them.
        last: the last layer among them.
        others: kind of each other part with weights to multiply with, by name: a module's type, or "parameter" for
            one that a module has beside its children.
    """

    layers: dict[nn.Module, str]
    first: set[nn.Module]
    last: set[nn.Module]
    others: dict[str, str]

    @property
    def outer(self) -> set[nn.Module]:
        """The first and the last layers."""
        return self.first | self.last


def select(
    model: nn.Module,
    *,
    types: Collection[type[nn.Module]],
    first: Sequence[str] | None,
    image_shape: tuple[int, int, int] | None,
) -> Selection:
    """Look through a float network.

    Args:
        model: left as it is.
        types: of the layers that can be quantized, exactly: what a subclass changes in its forward pass would be lost.
        first: modules whose layers all count as first; None: the first layer is the first.
        image_shape: channels, height, width. With it the network runs once, and layers that are never called (some
            networks read their weights instead) are among the others.

    Raises:
        ValueError: if a module of `first` does not exist or has no layer.
    """
    parts: dict[nn.Module, str] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module not in inside and (_is_layer(module) or isinstance(module, OPAQUE) or _owns_matrix(module)):
            parts[module] = name
        if _is_layer(module) or isinstance(module, OPAQUE):
            inside.update(module.modules())
    exact = {module for module in parts if type(module) in types}
    if image_shape is not None:
        exact &= _called(model, exact, image_shape)
    in_order = [module for module in parts if module in exact or (_is_layer(module) and type(module) not in types)]
    leading = in_order[:1] if first is None else _layers_of(model, first, in_order)
    return Selection(
        layers={module: name for module, name in parts.items() if module in exact},
        first=exact.intersection(leading),
        last=exact.intersection(in_order[-1:]),
        others=dict(
            named for module, name in parts.items() if module not in exact for named in _kinds(module, name).items()
        ),
    )


def by_kind(parts: dict[str, str]) -> str:
    """Kinds by name in few words.

    Example:
        >>> by_kind({"a.attention": "MultiheadAttention", "b.attention": "MultiheadAttention", "stem": "Conv1d"})
        'MultiheadAttention a.attention and 1 more, Conv1d stem'
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name, kind in parts.items():
        groups[kind].append(name)
    more = {kind: f" and {len(names) - 1} more" if len(names) > 1 else "" for kind, names in groups.items()}
    return ", ".join(f"{kind} {names[0]}{more[kind]}" for kind, names in groups.items())


def _kinds(module: nn.Module, name: str) -> dict[str, str]:
    if _is_layer(module) or isinstance(module, OPAQUE) or not any(True for _ in module.children()):
        return {name: type(module).__name__}
    prefix = f"{name}." if name else ""
    return {f"{prefix}{own}": "parameter" for own, p in module.named_parameters(recurse=False) if _is_matrix(p)}


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear)


def _owns_matrix(module: nn.Module) -> bool:
    """Whether a module has weights to multiply with; what normalises or scales channels has vectors."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return False
    return any(_is_matrix(p) for p in module.parameters(recurse=False))


def _is_matrix(parameter: nn.Parameter) -> bool:
    return sum(length > 1 for length in parameter.shape) > 1


def _called(model: nn.Module, layers: Iterable[nn.Module], image_shape: tuple[int, int, int]) -> set[nn.Module]:
    """The layers that take part in the forward pass of a black image."""
    called: set[nn.Module] = set()
    hooks = [layer.register_forward_pre_hook(lambda layer, _: called.add(layer)) for layer in layers]
    training, device = model.training, next(model.parameters()).device
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *image_shape, device=device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return called


def _layers_of(model: nn.Module, first: Sequence[str], layers: list[nn.Module]) -> set[nn.Module]:
    """All layers inside the named modules, or these themselves."""
    inside = {
        name: set(module.modules()).intersection(layers)
        for name, module in model.named_modules(remove_duplicate=False)
        if name
    }
    choices = [name for name, found in inside.items() if found]
    for name in first:
        if name not in choices:
            close = get_close_matches(name, choices) or [choice for choice in choices if "." not in choice]
            raise ValueError(
                f"first={list(first)}: the network has no convolution or linear layer in {name!r}; it has them in,"
                f" for instance, {', '.join(close)}"
            )
    return {layer for name in first for layer in inside[name]}

"""Selection of layers in a float network: those that can be quantized, the first and last of them, and the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from torch import nn

from sqakd.errors import SqakdError
from sqakd.quantization.probe import hooks_removed, run_on_black_image

# Modules that read the weights of the layers inside them without calling the layers, always or in evaluation mode.
OPAQUE = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


@dataclass(frozen=True)
class Selection:
    """Parts of one network, in the order in which they are registered.

    Attributes:
        layers: name of each layer that can be quantized.
        first: the first layers among them.
        last: the last layer among them.
        others: all other parts with weight matrices, as name and kind. The kind is the module's type, or "parameter"
            for a matrix that a module with children owns itself.
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
    """Find the parts of a float network.

    Args:
        model: float network; it is not changed.
        types: exact types of the layers that can be quantized. Subclasses are excluded, because the changes that they
            make to the forward pass would be lost.
        first: modules whose layers all count as first; None: only the first layer counts as first.
        image_shape: channels, height, width. If given, the network runs once, and layers that are never called (some
            networks read the weights of a layer instead of calling it) are listed under `others`.

    Raises:
        SqakdError: if a module of `first` does not exist or has no layer.
    """
    parts: dict[nn.Module, str] = {}
    inside: set[nn.Module] = set()  # modules inside a layer or an opaque module, which belong to that part
    for name, module in model.named_modules():
        if module not in inside and (_is_layer(module) or isinstance(module, OPAQUE) or _owns_matrix(module)):
            parts[module] = name
        if _is_layer(module) or isinstance(module, OPAQUE):
            inside.update(module.modules())
    exact = {module for module in parts if type(module) in types}
    if image_shape is not None:
        exact &= _called(model, exact, image_shape)
    # A layer of another type can be the network's first or last as well; the next one is then not an outer layer.
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
    """Return a short text that lists parts by their kind.

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
    """Return name and kind of a part that stays float; a module with children contributes its own matrices."""
    if _is_layer(module) or isinstance(module, OPAQUE) or not any(True for _ in module.children()):
        return {name: type(module).__name__}
    prefix = f"{name}." if name else ""
    return {f"{prefix}{own}": "parameter" for own, p in module.named_parameters(recurse=False) if _is_matrix(p)}


def _is_layer(module: nn.Module) -> bool:
    """Return whether a module is a convolution or a linear layer of any kind."""
    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear)


def _owns_matrix(module: nn.Module) -> bool:
    """Return whether a module owns weights for a matrix product.

    Normalisations are excluded: LayerNorm may have weights of several dimensions, but multiplies element by element.
    """
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return False
    return any(_is_matrix(p) for p in module.parameters(recurse=False))


def _is_matrix(parameter: nn.Parameter) -> bool:
    """Return whether a parameter has more than one dimension; dimensions of length 1 do not count."""
    return sum(length > 1 for length in parameter.shape) > 1


def _called(model: nn.Module, layers: Iterable[nn.Module], image_shape: tuple[int, int, int]) -> set[nn.Module]:
    """Return the layers that run in a forward pass."""
    called: set[nn.Module] = set()
    with hooks_removed(layer.register_forward_pre_hook(lambda layer, _: called.add(layer)) for layer in layers):
        run_on_black_image(model, image_shape)
    return called


def _layers_of(model: nn.Module, first: Sequence[str], layers: list[nn.Module]) -> set[nn.Module]:
    """Return all layers inside the named modules; a name may also be that of a layer."""
    inside = {
        name: set(module.modules()).intersection(layers)
        for name, module in model.named_modules(remove_duplicate=False)
        if name
    }
    choices = [name for name, found in inside.items() if found]
    for name in first:
        if name not in choices:
            close = get_close_matches(name, choices) or [choice for choice in choices if "." not in choice]
            raise SqakdError(
                f"first={list(first)}: the network has no convolution or linear layer in {name!r}; it has them in,"
                f" for instance, {', '.join(close)}"
            )
    return {layer for name in first for layer in inside[name]}

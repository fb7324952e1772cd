"""A network as a graph of calls (torch.fx), and what lowering needs to know about one call."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from sqakd.export.errors import ExportError
from sqakd.quantization.layers import QuantLayer
from sqakd.quantization.residual import QuantResidualSum

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NO_OPS = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
ADDITIONS = (torch.add, operator.add, operator.iadd)
INFINITY = float("inf")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, QuantLayer | QuantResidualSum) or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> fx.GraphModule:
    """Return the calls of a network in evaluation; quantized layers and sums are single calls, and modules are shared.

    Raises:
        ExportError: if the network's forward branches on values, so that it has no fixed graph.
    """
    try:
        graph = _Tracer().trace(network.eval())
    except Exception as error:  # tracing runs the network's own code on symbols, which may raise anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ExportError(
            f"{type(network).__name__} has no fixed graph ({reason}): its forward branches on values, so it cannot be"
            f" exported"
        ) from error
    return fx.GraphModule(network, graph, type(network).__name__)


def module_of(node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, or None if the node calls something else."""
    if node.op != "call_module":
        return None
    owner = node.graph.owning_module
    assert owner is not None
    return owner.get_submodule(str(node.target))


def calls(graph: fx.Graph, *types: type[nn.Module]) -> Iterator[tuple[fx.Node, nn.Module]]:
    """Yield the nodes that call a module of these types, with the module, in order."""
    for node in list(graph.nodes):
        module = module_of(node)
        if isinstance(module, types):
            yield node, module


def add_call(graph: fx.Graph, after: fx.Node, name: str, module: nn.Module, *args: fx.Node) -> fx.Node:
    """Add a module to the network and a call of it behind the node `after`; a name in use gets a number."""
    owner = graph.owning_module
    assert owner is not None
    taken, unique, number = dict(owner.named_modules()), name, 2
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    owner.add_submodule(unique, module)
    with graph.inserting_after(after):
        return graph.call_module(unique, args)


def replace(node: fx.Node, new: fx.Node) -> None:
    """Let all readers of `node` read `new`, except `new` itself, and remove `node`."""
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    node.graph.erase_node(node)


def is_no_op(node: fx.Node) -> bool:
    """Return whether a call has no effect in evaluation, such as dropout."""
    if node.op == "call_function" and node.target in (F.dropout, F.dropout2d):
        return True
    return isinstance(module_of(node), NO_OPS)


def clamp_of(node: fx.Node) -> tuple[float, float] | None:
    """Return the lowest and highest value of a ReLU, ReLU6 or other fixed clamp, or None for other calls."""
    module = module_of(node)
    if isinstance(module, nn.ReLU):
        return 0.0, INFINITY
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return float(module.min_val), float(module.max_val)
    if node.op == "call_function" and node.target in (F.relu, torch.relu, F.relu_, torch.relu_):
        return 0.0, INFINITY
    if node.op == "call_method" and node.target in ("relu", "relu_"):
        return 0.0, INFINITY
    if node.op == "call_function" and node.target is F.relu6:
        return 0.0, 6.0
    if node.op == "call_function" and node.target in (F.hardtanh, torch.clamp, torch.clip):
        low, high = _ends(node, (-1.0, 1.0) if node.target is F.hardtanh else (-INFINITY, INFINITY))
        return (low, high) if isinstance(low, int | float) and isinstance(high, int | float) else None
    return None


def _ends(node: fx.Node, default: tuple[float, float]) -> tuple[Any, Any]:
    """Return the two bounds of a call of clamp or hardtanh, given by position, by name or not at all."""
    given = [*list(node.args[1:3]), None, None]
    low = node.kwargs.get("min", node.kwargs.get("min_val", given[0]))
    high = node.kwargs.get("max", node.kwargs.get("max_val", given[1]))
    return default[0] if low is None else low, default[1] if high is None else high


def moves_values(node: fx.Node) -> bool:
    """Return whether a call only selects, joins or reorders values.

    A function of single values that never falls gives the same result before such a call and behind it.
    """
    if isinstance(module_of(node), nn.MaxPool2d):
        return not getattr(module_of(node), "return_indices", False)
    if isinstance(module_of(node), nn.Flatten):
        return True
    return node.op == "call_function" and node.target in (F.max_pool2d, torch.max_pool2d, torch.cat, torch.flatten)


def selects_or_pads(node: fx.Node) -> bool:
    """Return whether a call slices a tensor or surrounds it with zeros."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        index = node.args[1]
        return all(isinstance(part, slice) for part in (index if isinstance(index, tuple) else (index,)))
    mode, value = (node.kwargs.get(key, default) for key, default in (("mode", "constant"), ("value", None)))
    return bool(node.target is F.pad and len(node.args) == 2 and mode == "constant" and not value)


def sources(node: fx.Node) -> list[fx.Node]:
    """Return the inputs of a call that moves values: one tensor, or the tensors that it joins."""
    first = node.args[0] if node.args else node.kwargs.get("input", node.kwargs.get("tensors"))
    several = first if isinstance(first, list | tuple) else [first]
    return [source for source in several if isinstance(source, fx.Node)]


def adds(node: fx.Node) -> bool:
    """Return whether a call adds two tensors."""
    is_sum = (node.op == "call_function" and node.target in ADDITIONS) or (
        node.op == "call_method" and node.target in ("add", "add_")
    )
    return is_sum and len(node.args) == 2 and all(isinstance(arg, fx.Node) for arg in node.args)


def cleaned(module: fx.GraphModule) -> fx.GraphModule:
    """Remove calls and modules without a reader, and return the module."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.delete_all_unused_submodules()
    module.recompile()
    return module

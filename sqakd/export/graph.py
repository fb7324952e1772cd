"""A network as a graph of calls, and the questions that lowering asks about one call."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from sqakd.export.errors import ExportError
from sqakd.quantization.layers import QuantLayer

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
ADDITIONS = (torch.add, operator.add, operator.iadd)
INFINITY = float("inf")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, QuantLayer) or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> fx.GraphModule:
    """The calls of a network in evaluation; quantized layers stay whole. The network's modules are shared.

    Raises:
        ExportError: if what it computes depends on values, so that no fixed graph stands for it.
    """
    try:
        graph = _Tracer().trace(network.eval())
    except Exception as error:  # whatever the network's own code runs into when it is given symbols for tensors
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ExportError(
            f"{type(network).__name__} cannot be written as a fixed graph ({reason}): its forward decides by values, so"
            f" it cannot be exported"
        ) from error
    return fx.GraphModule(network, graph, type(network).__name__)


def module_of(node: fx.Node) -> nn.Module | None:
    """The module that a node calls."""
    if node.op != "call_module":
        return None
    owner = node.graph.owning_module
    assert owner is not None
    return owner.get_submodule(str(node.target))


def calls(graph: fx.Graph, *types: type[nn.Module]) -> Iterator[tuple[fx.Node, nn.Module]]:
    """Nodes that call a module of these types, in order."""
    for node in list(graph.nodes):
        module = module_of(node)
        if isinstance(module, types):
            yield node, module


def add_call(graph: fx.Graph, after: fx.Node, name: str, module: nn.Module, *args: fx.Node) -> fx.Node:
    """A call of a new module, put behind `after`; a name that is taken gets a number."""
    owner = graph.owning_module
    assert owner is not None
    taken, unique, number = dict(owner.named_modules()), name, 2
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    owner.add_submodule(unique, module)
    with graph.inserting_after(after):
        return graph.call_module(unique, args)


def does_nothing(node: fx.Node) -> bool:
    """Dropout and the like, in evaluation."""
    if node.op == "call_function" and node.target in (F.dropout, F.dropout2d):
        return True
    return isinstance(module_of(node), NOTHING)


def clamp_of(node: fx.Node) -> tuple[float, float] | None:
    """Lowest and highest value that a node lets through if it is ReLU, ReLU6 or another fixed clamp."""
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


def _ends(node: fx.Node, otherwise: tuple[float, float]) -> tuple[Any, Any]:
    given = [*list(node.args[1:3]), None, None]
    low = node.kwargs.get("min", node.kwargs.get("min_val", given[0]))
    high = node.kwargs.get("max", node.kwargs.get("max_val", given[1]))
    return otherwise[0] if low is None else low, otherwise[1] if high is None else high


def moves_values(node: fx.Node) -> bool:
    """Whether a node only picks, joins or reorders values, so that a rising function may go before or behind it."""
    if isinstance(module_of(node), nn.MaxPool2d):
        return not getattr(module_of(node), "return_indices", False)
    if isinstance(module_of(node), nn.Flatten):
        return True
    return node.op == "call_function" and node.target in (F.max_pool2d, torch.max_pool2d, torch.cat, torch.flatten)


def sources(node: fx.Node) -> list[fx.Node]:
    """What a value-moving node reads: one tensor, or the tensors that it joins."""
    first = node.args[0] if node.args else node.kwargs.get("input", node.kwargs.get("tensors"))
    several = first if isinstance(first, list | tuple) else [first]
    return [source for source in several if isinstance(source, fx.Node)]


def adds(node: fx.Node) -> bool:
    """Whether a node adds two tensors."""
    is_sum = (node.op == "call_function" and node.target in ADDITIONS) or (
        node.op == "call_method" and node.target in ("add", "add_")
    )
    return is_sum and len(node.args) == 2 and all(isinstance(arg, fx.Node) for arg in node.args)


def tidy(module: fx.GraphModule) -> fx.GraphModule:
    """Drop calls and modules that nothing needs any more."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.delete_all_unused_submodules()
    module.recompile()
    return module

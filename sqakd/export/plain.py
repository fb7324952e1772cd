"""Calls that libraries write in their own way, rewritten as the plain ones that lowering knows (before step 1).

timm's batch norm with activation checks the shape of its input and calls the function of batch norm. Without the check,
and with a module in place of the function, it is folded like any other batch norm.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from sqakd.export.graph import add_call, module_of


def make_plain(graph: fx.Graph) -> None:
    """Remove checks of shapes, and replace the function of batch norm in evaluation by the module."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is torch._assert:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    for node in list(graph.nodes):
        norm = _batch_norm(node)
        if norm is not None:
            x = node.args[0]
            assert isinstance(x, fx.Node)
            new = add_call(graph, node, f"{node.name}_norm", norm, x)
            node.replace_all_uses_with(new)
            graph.erase_node(node)


def _batch_norm(node: fx.Node) -> nn.Module | None:
    """Return the module for a call of batch norm in evaluation behind a convolution, or None for other calls."""
    if node.op != "call_function" or node.target is not F.batch_norm:
        return None
    if not isinstance(node.args[0], fx.Node) or not isinstance(module_of(node.args[0]), nn.Conv2d):
        return None
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    mean, variance, weight, bias = (_tensor(given.get(name)) for name in names[1:5])
    if given.get("training") or mean is None or variance is None:
        return None
    norm = nn.BatchNorm2d(len(mean), eps=float(given.get("eps", 1e-5)), affine=True).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for own, value, default in ((norm.weight, weight, 1.0), (norm.bias, bias, 0.0)):
            own.copy_(torch.full_like(mean, default) if value is None else value)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return norm


def _tensor(value: object) -> Tensor | None:
    """Return the parameter or buffer that a node reads, or None."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None
    owner, _, name = str(value.target).rpartition(".")
    module = value.graph.owning_module
    assert module is not None
    found = getattr(module.get_submodule(owner), name)
    return found if isinstance(found, Tensor) else None

"""Folding of batch norm into the layer before it (step 2 of lowering).

In evaluation batch norm is y = factor * x + shift per channel. A layer that computes with integers takes it into its
scale and offset, a float convolution into its weight and bias.
"""

from __future__ import annotations

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sqakd.export.graph import BATCH_NORMS, calls, module_of, replace
from sqakd.export.modules import RealOutput


def fold_batch_norms(graph: fx.Graph) -> None:
    """Fold each batch norm that is the only reader of a convolution."""
    for node, norm in calls(graph, *BATCH_NORMS):
        source = node.args[0]
        # Without running statistics batch norm depends on the batch, also in evaluation, and cannot be folded.
        if not isinstance(source, fx.Node) or len(source.users) != 1 or norm.running_var is None:
            continue
        before = module_of(source)
        owner = graph.owning_module
        assert owner is not None
        if isinstance(before, RealOutput) and before.geometry is not None:
            factor, shift = affine(norm)
            owner.set_submodule(str(source.target), before.with_affine(factor, shift))
        elif type(before) is nn.Conv2d and isinstance(norm, nn.BatchNorm2d) and _times_called(graph, source) == 1:
            owner.set_submodule(str(source.target), fuse_conv_bn_eval(before, norm))
        else:
            continue
        replace(node, source)


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return batch norm in evaluation as factor and shift of y = factor * x + shift, float64 [C] each."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    factor = 1 / (norm.running_var.double() + norm.eps).sqrt()
    shift = -norm.running_mean.double() * factor
    if norm.affine:
        factor, shift = factor * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    return factor, shift


def _times_called(graph: fx.Graph, node: fx.Node) -> int:
    """Return how many calls of the network use the module of `node`; a shared one must keep its weights."""
    return sum(other.op == "call_module" and other.target == node.target for other in graph.nodes)

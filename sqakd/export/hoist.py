"""Moving quantizers up over calls that only select, join or reorder values (step 3 of lowering).

Quantizing never changes the order of values, so quantize(max pool(x)) equals max pool(quantize(x)), and the same holds
for concatenation. It also holds for padding with zeros where the stored integer of 0 is 0. A quantizer that reaches
the layer before the pooling can be fused with that layer.
"""

from __future__ import annotations

from torch import fx

from sqakd.export.graph import module_of, moves_values, replace, selects_or_pads, sources
from sqakd.export.modules import Quantize


def hoist(graph: fx.Graph) -> None:
    """Move each quantizer up as far as possible."""
    # From the last call to the first, so that a quantizer crosses several calls in one pass where they follow each
    # other; a concatenation needs more passes, because its copies of the quantizer appear above it.
    while any(_mover_above(node) for node in graph.nodes):
        for node in reversed(list(graph.nodes)):
            mover = _mover_above(node)
            if mover is not None:
                _swap(graph, node, mover)


def _mover_above(node: fx.Node) -> fx.Node | None:
    """Return the call that a quantizer can cross, or None; nothing but the quantizer may read that call."""
    quantize, mover = module_of(node), node.args[0] if node.args else None
    if not isinstance(quantize, Quantize) or not isinstance(mover, fx.Node) or len(mover.users) != 1:
        return None
    zero_is_stored_as_zero = quantize.stored.codes.zero_point == 0 and quantize.stored.input.origin == 0
    return mover if moves_values(mover) or (zero_is_stored_as_zero and selects_or_pads(mover)) else None


def _swap(graph: fx.Graph, quantizer: fx.Node, mover: fx.Node) -> None:
    """Quantize each input of `mover` instead of its output."""
    with graph.inserting_before(mover):
        codes = {source: graph.call_module(str(quantizer.target), (source,)) for source in sources(mover)}
    for source, code in codes.items():
        mover.replace_input_with(source, code)
    replace(quantizer, mover)

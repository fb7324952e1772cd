"""Fusion of a convolution, its clamp and the next layer's quantizer into one integer call (step 4 of lowering)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from sqakd.export.counted import parts_of_sums
from sqakd.export.errors import ExportError
from sqakd.export.graph import INFINITY, add_call, calls, clamp_of, is_no_op, module_of, replace
from sqakd.export.levels import CountedOutput, IntegerOutput
from sqakd.export.modules import Quantize, RealOutput
from sqakd.export.requantization import solve_requantization
from sqakd.export.residual import is_operand
from sqakd.export.stored import StoredInput

# A layer that several quantizers read is computed once for each of them, up to this number; beyond it, the layer is
# computed once, with a real output.
MOST_READERS = 2


@dataclass(frozen=True)
class _Reader:
    """A quantizer that reads a layer, and the clamp between the two."""

    node: fx.Node
    low: float
    high: float


def fuse(graph: fx.Graph, *, positive_scales: bool, count: bool) -> None:
    """Fuse each convolution whose output only quantizers read; the options are those of `Lowering`.

    An operand of a residual sum has up to 256 codes. Few layers requantize so many codes without a wrong sum, and
    counting so many stairs is slower than the float network. Such a layer keeps its real output, whose rounding has the
    ties of single precision.
    """
    for node, layer in calls(graph, RealOutput):
        assert isinstance(layer, RealOutput)
        readers = _readers(node, -INFINITY, INFINITY)
        if layer.geometry is None or not readers or len(readers) > MOST_READERS:
            continue
        source = node.args[0]
        assert isinstance(source, fx.Node)
        for reader in readers:
            quantize = module_of(reader.node)
            assert isinstance(quantize, Quantize)
            low, high = _clamped_levels(quantize.stored, reader)
            try:
                solution = solve_requantization(
                    layer.integer_weight.integers,
                    scale=layer.scale,
                    offset=layer.offset,
                    input=layer.stored.input,
                    output=quantize.stored.input,
                    low=low,
                    high=high,
                    largest_weight=layer.stored.largest_weight,
                    positive_scales=positive_scales,
                )
                wrong = count and int(solution.wrong.sum()) > 0
                if wrong and is_operand(reader.node):
                    continue
                counts = wrong and _can_count(layer)
                form = CountedOutput if counts else IntegerOutput
                fused = form(solution=solution, next=quantize.stored, low=low, high=high, **layer.arguments)
            except ExportError as error:
                raise error.in_layer(layer.name) from error
            replace(reader.node, add_call(graph, node, f"{layer.name}_codes", fused, source))


def _readers(node: fx.Node, low: float, high: float) -> list[_Reader] | None:
    """Return the quantizers that read a call's output, or None if anything else reads it as well.

    Args:
        node: a layer, or a clamp behind it.
        low: lowest value that the clamps so far let through.
        high: highest value that they let through.
    """
    found: list[_Reader] = []
    for user in node.users:
        if isinstance(module_of(user), Quantize):
            found.append(_Reader(user, low, high))
            continue
        clamp = (-INFINITY, INFINITY) if is_no_op(user) else clamp_of(user)
        further = clamp and _readers(user, *(min(max(end, clamp[0]), clamp[1]) for end in (low, high)))
        if not further:
            return None
        found += further
    return found or None


def _can_count(layer: RealOutput) -> bool:
    """Return whether single precision holds the layer's sums, which fails with about 8,000 inputs of 8 bits."""
    integers, codes = layer.integer_weight.integers, layer.stored.input.code_range
    return min(parts_of_sums(sign * integers, codes) for sign in (1, -1)) > 0  # a channel is stored with either sign


def _clamped_levels(next: StoredInput, reader: _Reader) -> tuple[int, int]:
    """Return the levels of the clamp's two ends: a clamp on real values is a clamp on levels."""
    low, high = (int(next.input.level(torch.tensor(end, dtype=torch.float64))) for end in (reader.low, reader.high))
    return low, high

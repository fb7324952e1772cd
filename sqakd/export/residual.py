"""Residual sums on integers (`residual_bits`): from the trained module to calls on codes."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from sqakd.export.errors import ExportError
from sqakd.export.graph import (
    add_call,
    calls,
    clamp_of,
    is_no_op,
    module_of,
    moves_values,
    selects_or_pads,
    sources,
)
from sqakd.export.graph import replace as replace_call
from sqakd.export.integer_input import IntegerInput, integer_input
from sqakd.export.modules import Dequantize, IntegerSum, LowerBound, Quantize, RealOutput
from sqakd.export.stored import StoredInput
from sqakd.numbers import MAX_BITS
from sqakd.quantization.residual import QuantResidualSum

TOLERANCE = 1e-9  # largest relative difference of two steps that come from one parameter


def expand_sums(graph: fx.Graph, *, signed: bool) -> None:
    """Replace each residual sum by roundings of its operands, a sum of codes, and the real values of the result.

    Args:
        graph: network whose layers are expanded already.
        signed: see `Lowering`.

    Raises:
        ExportError: if codes do not fit the storage type.
    """
    for node, total in calls(graph, QuantResidualSum):
        assert isinstance(total, QuantResidualSum)
        name = str(node.target)
        try:
            integer = _integer_sum(total, signed=signed)
        except ExportError as error:
            if error.topic != "export.trt_codes":
                raise error.in_layer(name) from error
            raise ExportError(f"layer {name}: {error}", topic="export.trt_sums", bits=MAX_BITS - 1) from error
        codes_of = []
        for x, part in zip(operands(node), ("branch", "shortcut"), strict=True):
            codes_of.append(add_call(graph, x, f"{name}_{part}", Quantize(getattr(integer, part)), x))
        codes = add_call(graph, node, f"{name}_codes", integer, *codes_of)
        replace_call(node, add_call(graph, codes, f"{name}_real", Dequantize(integer.output), codes))


def join_grids(graph: fx.Graph) -> None:
    """Remove each quantizer that reads the result of a residual sum and has the same codes."""
    for node, quantize in calls(graph, Quantize):
        source = node.args[0]
        assert isinstance(quantize, Quantize)
        while isinstance(source, fx.Node) and is_no_op(source):
            source = source.args[0]
        assert isinstance(source, fx.Node)
        real = module_of(source)
        if isinstance(real, Dequantize) and _same(real.stored, quantize.stored):
            codes = source.args[0]
            assert isinstance(codes, fx.Node)
            replace_call(node, codes)


def separate_rounding(graph: fx.Graph) -> None:
    """Put a lower bound before each quantizer of a residual sum that reads a layer with a real output.

    The bound is the lowest code, so it changes no code. Without an operation between them, ONNX Runtime joins a
    convolution with the rounding behind it, also through a ReLU or a slice, and makes weights and bias integers of its
    own choice. ONNX Runtime removes a Clip, but not this bound.
    """
    for node, quantize in calls(graph, Quantize):
        assert isinstance(quantize, Quantize)
        (source,) = node.args
        assert isinstance(source, fx.Node)
        if is_operand(node) and isinstance(module_of(_origin(source)), RealOutput):
            found = quantize.stored.input
            low = LowerBound(found.origin - found.shift * found.step)
            node.replace_input_with(source, add_call(graph, source, f"{node.target}_low", low, source))


def is_operand(codes: fx.Node) -> bool:
    """Return whether codes go into a residual sum, perhaps through calls that only move values."""
    return any(
        isinstance(module_of(user), IntegerSum)
        or ((moves_values(user) or selects_or_pads(user) or is_no_op(user)) and is_operand(user))
        for user in codes.users
    )


def _origin(node: fx.Node) -> fx.Node:
    """Return the call behind clamps and calls that only move values."""
    while is_no_op(node) or clamp_of(node) or moves_values(node) or selects_or_pads(node):
        above = sources(node)
        if len(above) != 1:
            break
        (node,) = above
    return node


def operands(node: fx.Node) -> list[fx.Node]:
    """Return the two operands of a call of a residual sum, given by position or by name."""
    given = [*node.args, *(node.kwargs[key] for key in ("branch", "shortcut") if key in node.kwargs)]
    found = [x for x in given if isinstance(x, fx.Node)]
    assert len(found) == 2
    return found


def _integer_sum(total: QuantResidualSum, *, signed: bool) -> IntegerSum:
    branch, shortcut = (StoredInput(input=integer_input(quantizer), signed=signed) for quantizer in total.operands)
    low, high = total.output_range
    output = replace(branch.input, origin=0.0, shift=-low, zero_point=-low, levels=high - low)
    return IntegerSum(branch=branch, shortcut=shortcut, output=StoredInput(input=output, signed=signed))


def _same(one: StoredInput, other: StoredInput) -> bool:
    """Return whether two tensors of stored integers have the same meaning."""

    def whole(found: IntegerInput) -> tuple[int, ...]:
        return found.shift, found.levels, found.gap, found.zero_point

    a, b = one.input, other.input
    near = all(
        abs(x - y) <= TOLERANCE * a.step for x, y in ((a.step, b.step), (a.scale, b.scale), (a.origin, b.origin))
    )
    return one.signed == other.signed and whole(a) == whole(b) and near

"""The budget of bits=auto on one network: the layers that are free, the cost of the rest, and impossible limits."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

from torch import nn

from sqakd.allocation.costs import Rest, counts
from sqakd.allocation.limits import limits_of, pairs_of
from sqakd.allocation.table import LayerSensitivity
from sqakd.app.compose import located
from sqakd.app.parts import Parts
from sqakd.numbers import is_whole
from sqakd.quantization.convert import TWINS, Scheme, quantize
from sqakd.quantization.cost import FLOAT_BITS, cost
from sqakd.quantization.layers import quant_layers
from sqakd.quantization.selection import select
from sqakd.quantization.widths import Bits
from sqakd.runs.spec import Spec

Shape = tuple[int, int, int]


def check_budget(spec: Spec, parts: Parts, network: nn.Module) -> None:
    """Refuse a budget that no choice of bits keeps, before a teacher is trained.

    Args:
        spec: of a run with bits that are to be chosen.
        parts: of the run, with images loaded.
        network: the student's float network, with any weights.

    Raises:
        SqakdError: with the smallest possible value.
    """
    assert parts.scheme is not None
    first, shape = spec.config["model"]["first"], parts.data.image_shape
    layers = counts(free_layers(network, parts.scheme, first, shape), network, shape)
    with located("budget"):
        rest = rest_of(network, parts.scheme, first, shape, layers)
        limits_of(layers, parts.budget, rest, pairs_of(parts.budget, **fixed_bits(spec)))


def fixed_bits(spec: Spec) -> dict[str, list[int] | None]:
    """Return the bits of all weights and of all inputs where they are not to be chosen, such as bits=auto a_bits=4."""
    weights, inputs = ([bits] if is_whole(bits) else None for bits in spec.bits)
    return {"w_widths": weights, "a_widths": inputs}


def free_layers(network: nn.Module, scheme: Scheme, first: Sequence[str] | None, shape: Shape) -> dict[nn.Module, str]:
    """Return the layers of a float network whose bits are not fixed by `first_last`, with their names."""
    found = select(network, types=TWINS, first=first, image_shape=shape)
    return {layer: found.layers[layer] for layer, bits in scheme.bits_of_layers(found).items() if bits == Bits()}


def rest_of(
    network: nn.Module, scheme: Scheme, first: Sequence[str] | None, shape: Shape, layers: Sequence[LayerSensitivity]
) -> Rest:
    """Return the cost of everything in a quantized network but the given layers."""
    quantized, names = copy.deepcopy(network), {layer.name: layer for layer in layers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about layers that stay float; it was given before
        quantize(quantized, scheme, first=first, image_shape=shape)
    measured = cost(quantized, shape)
    bits, operations = measured.parameters * FLOAT_BITS, measured.bit_operations
    for name, layer in quant_layers(quantized):
        w_bits, a_bits = (quantizer.bits for quantizer in layer.quantizers)
        bits -= layer.weight.numel() * (FLOAT_BITS - (0 if name in names else w_bits))
        operations -= names[name].multiply_adds * w_bits * a_bits if name in names else 0
    return Rest(bits=bits, bit_operations=operations)

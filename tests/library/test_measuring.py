"""`sensitivity` on a network in memory."""

from __future__ import annotations

from typing import Any

import library_parts
import pytest
import small

import sqakd
from sqakd.quantization.cost import cost
from sqakd.quantization.layers import layer_bits


def test_a_network_and_a_loader_are_enough() -> None:
    network = library_parts.network().eval()
    found = sqakd.sensitivity(network, library_parts.batches(), "lsq", widths=[2, 8], batches=3)
    assert found.images == 24
    assert [layer.name for layer in found.layers] == ["0", "3", "5"]
    assert all(layer.input[8] < layer.input[2] for layer in found.layers)
    cheap = sqakd.sensitivity(network, library_parts.images(), criterion="curvature", widths=[4])
    assert [sorted(layer.weight) for layer in cheap.layers] == [[4]] * 3


def test_the_chosen_bits_keep_within_the_budget_of_the_quantized_network() -> None:
    network = small.network().eval()
    found = sqakd.sensitivity(network, small.batch(8), "lsq", widths=[1, 2, 4])
    uniform = cost(sqakd.quantize(network, "lsq", bits=2), small.SHAPE)
    limits: dict[str, Any] = {"size": uniform.packed_bytes, "bit_operations": uniform.bit_operations}
    chosen = sqakd.allocate(network, found, small.batch(2), "lsq", **limits)
    student = sqakd.quantize(network, "lsq", **chosen)
    measured = cost(student, small.SHAPE)
    assert measured.packed_bytes <= uniform.packed_bytes
    assert measured.bit_operations <= uniform.bit_operations
    assert {name: w_bits for name, (w_bits, _) in layer_bits(student).items()} == chosen["layer_w_bits"]
    with pytest.raises(sqakd.SqakdError, match="expected size, bit_operations or average_bits"):
        sqakd.allocate(network, found, small.batch(2))
    least = (
        uniform.packed_bytes - sum(layer.weights for layer in found.layers if layer.name in chosen["layer_w_bits"]) // 8
    )
    with pytest.raises(sqakd.SqakdError, match=f"size=9: expected at least {least} bytes"):
        sqakd.allocate(network, found, small.batch(2), size=9)


def test_an_unknown_quantizer_is_refused() -> None:
    with pytest.raises(sqakd.SqakdError, match="found no quantizer 'lsqq'; did you mean lsq"):
        sqakd.sensitivity(library_parts.network(), library_parts.images(), "lsqq")

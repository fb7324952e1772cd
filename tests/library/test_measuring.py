"""`sensitivity` on a network in memory."""

from __future__ import annotations

import library_parts
import pytest

import sqakd


def test_a_network_and_a_loader_are_enough() -> None:
    network = library_parts.network().eval()
    found = sqakd.sensitivity(network, library_parts.batches(), "lsq", widths=[2, 8], batches=3)
    assert found.images == 24
    assert [layer.name for layer in found.layers] == ["0", "3", "5"]
    assert all(layer.input[8] < layer.input[2] for layer in found.layers)
    cheap = sqakd.sensitivity(network, library_parts.images(), criterion="curvature", widths=[4])
    assert [sorted(layer.weight) for layer in cheap.layers] == [[4]] * 3


def test_an_unknown_quantizer_is_refused() -> None:
    with pytest.raises(sqakd.SqakdError, match="found no quantizer 'lsqq'; did you mean lsq"):
        sqakd.sensitivity(library_parts.network(), library_parts.images(), "lsqq")

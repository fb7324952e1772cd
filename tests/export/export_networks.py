"""What the export's tests lower: networks of the tables, quantized, calibrated and made to look trained."""

from __future__ import annotations

import small
import torch
from torch import Tensor, nn

from sqakd.layers import QuantLayer
from sqakd.quantizers.base import Quantizer


def convert(layer: nn.Module, method: str, bits: int, *, per_channel: bool = False) -> QuantLayer:
    """The quantized twin of one layer, not calibrated."""
    words = [f"quantizer={method}", f"quantizer.per_channel={str(per_channel).lower()}"]
    return small.scheme(*words).convert(layer, bits=bits)


def expected_refusal(layer: QuantLayer) -> str | None:
    """Which words the export uses for a layer that integers of 8 bits cannot stand for; None where they can."""
    probe = torch.linspace(-3, 3, 64, dtype=layer.weight.dtype)
    if depends_on_neighbours(layer.input_quantizer, probe):
        return "by the batch it comes in"
    if int(layer.weight_quantizer.grid().max()) > 127:
        return "type regrid=true"
    return None


def depends_on_neighbours(quantizer: Quantizer, x: Tensor) -> bool:
    alone = [quantizer.codes(size * x).integers for size in (1.0, 0.1)]
    crowded = [quantizer.codes(torch.cat([size * x, 50 * x])).integers[: len(x)] for size in (1.0, 0.1)]
    return not all(torch.equal(a, b) for a, b in zip(alone, crowded, strict=True))

"""The geometry of a convolution as operators and ONNX nodes take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from sqakd.export.errors import ExportError


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where a convolution reads its input.

    Attributes:
        stride: vertical, horizontal.
        pads: top, left, bottom, right; the padding has code 0.
        dilation: vertical, horizontal.
        groups: number of groups that channels are divided into.
    """

    stride: Sequence[int]
    pads: Sequence[int]
    dilation: Sequence[int]
    groups: int

    @classmethod
    def of(cls, layer: nn.Conv2d) -> Geometry:
        """Return the geometry of a torch layer.

        Raises:
            ExportError: if the layer pads with anything but zeros.
        """
        if layer.padding_mode != "zeros":
            raise ExportError(
                f"padding_mode={layer.padding_mode!r}: no integer convolution pads like this, expected 'zeros'"
            )
        stride, dilation = ((int(pair[0]), int(pair[1])) for pair in (layer.stride, layer.dilation))
        return cls(stride=stride, pads=_pads(layer), dilation=dilation, groups=layer.groups)


def _pads(layer: nn.Conv2d) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right padding; torch allows two words in place of numbers."""
    if layer.padding == "valid":
        return (0, 0, 0, 0)
    if layer.padding == "same":
        # An odd total is padded by one more at the bottom and at the right, as torch does.
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        top, left = (t // 2 for t in total)
        return (top, left, total[0] - top, total[1] - left)
    top, left = (int(p) for p in layer.padding)
    return (top, left, top, left)

"""The layers of a lowered network: integers as buffers, everything else as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sqakd.export import ops
from sqakd.export.errors import ExportError
from sqakd.export.requantize import Requantized
from sqakd.export.spec import INT8_HIGH, InputSpec, WeightSpec


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How a spec's integers lie in memory.

    Attributes:
        spec: the integers.
        signed: int8 with zero point 0 (what TensorRT asks for); else uint8 from 0.
    """

    spec: InputSpec
    signed: bool

    def __post_init__(self) -> None:
        if self.signed and (self.spec.gap != 1 or self.spec.code_range[1] > INT8_HIGH):
            low, high = self.spec.code_range
            raise ExportError(
                f"profile=trt keeps inputs as int8 with zero point 0, and the codes {low} .. {high}"
                f" of a layer's input do not fit; train with a_bits={min(7, self.spec.bits)} quantizer=lsq, or type"
                f" profile=exact"
            )

    @property
    def base(self) -> int:
        """What is taken off every stored integer."""
        return self.spec.zero_point if self.signed else 0

    @property
    def zero_point(self) -> int:
        return self.spec.zero_point - self.base

    @property
    def shift(self) -> int:
        return self.spec.shift - self.base

    def levels(self, low: int, high: int) -> tuple[int, int]:
        """Stored levels of levels counted from 0."""
        return low - self.base, high - self.base


class Quantize(nn.Module):
    """Real values -> stored integers of a layer's input; any shape."""

    def __init__(self, stored: Stored) -> None:
        super().__init__()
        self.stored = stored

    def forward(self, x: Tensor) -> Tensor:
        spec = self.stored.spec
        low, high = self.stored.levels(0, spec.levels)
        y: Tensor = ops.quantize(x, spec.origin, spec.step, self.stored.shift, low, high, spec.gap, self.stored.signed)
        return y


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Of a convolution; `pads` are top, left, bottom, right."""

    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, layer: nn.Conv2d, name: str) -> Geometry:
        """Raises ExportError for a padding other than zeros."""
        if layer.padding_mode != "zeros":
            raise ExportError(
                f"layer {name} pads with padding_mode={layer.padding_mode!r}, for which no integer convolution exists;"
                f" only zeros can be exported"
            )
        if layer.padding == "valid":
            pads = (0, 0, 0, 0)
        elif layer.padding == "same":
            total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
            top, left = (t // 2 for t in total)
            pads = (top, left, total[0] - top, total[1] - left)
        else:
            top, left = (int(p) for p in layer.padding)
            pads = (top, left, top, left)
        stride, dilation = (
            (int(layer.stride[0]), int(layer.stride[1])),
            (int(layer.dilation[0]), int(layer.dilation[1])),
        )
        return cls(stride=stride, pads=pads, dilation=dilation, groups=layer.groups)


class IntegerLayer(nn.Module):
    """What convolutions and linear layers on codes share.

    Args:
        name: of the layer in the trained network.
        weight: its integers.
        stored: its input's integers.
        scale: value of one accumulator unit after what was folded, float64 [C].
        offset: value of accumulator 0, float64 [C].
        geometry: of a convolution; None for a linear layer.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor

    def __init__(
        self,
        *,
        name: str,
        weight: WeightSpec,
        stored: Stored,
        scale: Tensor,
        offset: Tensor,
        geometry: Geometry | None,
    ) -> None:
        super().__init__()
        self.name, self.weight_spec, self.stored, self.geometry = name, weight, stored, geometry
        self.scale, self.offset = scale, offset
        self.head_room = max(1, INT8_HIGH // max(1, int(weight.integers.abs().max())))
        self.sign = torch.ones(len(scale), dtype=torch.long)

    def place(self) -> tuple[Any, ...]:
        """The geometry as operators take it."""
        geometry = self.geometry
        assert geometry is not None
        return list(geometry.stride), list(geometry.pads), list(geometry.dilation), geometry.groups

    def folded(self, factor: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and offset after y -> factor * y + shift."""
        return self.scale * factor.double(), self.offset * factor.double() + shift.double()


class RealOutput(IntegerLayer):
    """Stored integers -> real values: where something other than one quantizer reads the output.

    Args:
        flip: see `requantize`.
        **layer: see `IntegerLayer`.
    """

    def __init__(self, *, flip: bool, **layer: Any) -> None:
        super().__init__(**layer)
        self.flip = flip
        weights = self.head_room * self.weight_spec.integers.long()
        per_channel = (-1, *[1] * (weights.ndim - 1))
        flipped = torch.where((self.scale < 0) & flip, -1, 1)
        fits = (weights * flipped.view(per_channel)).flatten(1).amax(dim=1) <= INT8_HIGH
        self.sign = torch.where(fits, flipped, 1)
        self.register_buffer("weight", (weights * self.sign.view(per_channel)).to(torch.int8))
        scale = self.scale * self.sign / (self.stored.spec.scale * self.head_room)
        self.register_buffer("weight_scale", scale.float())
        self.register_buffer("bias", self.offset.float())

    def forward(self, x: Tensor) -> Tensor:
        input = (self.weight, self.weight_scale, self.bias, self.stored.spec.scale, self.stored.zero_point)
        y: Tensor
        y = ops.multiply(x, *input) if self.geometry is None else ops.convolve(x, *input, *self.place())
        return y

    def with_affine(self, factor: Tensor, shift: Tensor) -> RealOutput:
        """The same layer followed by y -> factor * y + shift, per output channel."""
        scale, offset = self.folded(factor, shift)
        return RealOutput(
            flip=self.flip,
            name=self.name,
            weight=self.weight_spec,
            stored=self.stored,
            scale=scale,
            offset=offset,
            geometry=self.geometry,
        )


class IntegerOutput(IntegerLayer):
    """Stored integers -> stored integers of the next layer; `certificate` says how many sums get another level."""

    def __init__(self, *, certificate: Requantized, next: Stored, low: int, high: int, **layer: Any) -> None:
        super().__init__(**layer)
        self.certificate, self.next, self.low, self.high = certificate, next, low, high
        self.head_room, self.sign = certificate.head_room, certificate.sign
        unit = torch.tensor(self.stored.spec.scale, dtype=torch.float32) * certificate.weight_scale
        self.register_buffer("weight", certificate.weight)
        self.register_buffer("weight_scale", certificate.weight_scale)
        self.register_buffer("bias", (certificate.bias.double() * unit.double()).float())
        if not torch.equal((self.bias / unit).round().long(), certificate.bias):
            raise ExportError(f"layer {self.name}: a bias is too large for single precision")

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.next.levels(self.low, self.high)
        y: Tensor = ops.requantize(
            x,
            self.weight,
            self.weight_scale,
            self.bias,
            self.stored.spec.scale,
            self.stored.zero_point,
            *self.place(),
            self.next.spec.step,
            self.next.shift,
            low,
            high,
            self.next.spec.gap,
            self.next.signed,
        )
        return y


class Eight(nn.Module):
    """A stream of real values on 256 levels over [low, high], 0 among them; any shape."""

    def __init__(self, low: float, high: float, *, signed: bool) -> None:
        super().__init__()
        low, high = min(low, 0.0), max(high, 0.0)
        self.signed = signed
        if signed:
            self.scale, self.zero_point = max(-low, high, 1e-12) / INT8_HIGH, 0
        else:
            self.scale = max(high - low, 1e-12) / 255
            self.zero_point = round(-low / self.scale)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = ops.eight(x, self.scale, self.zero_point, self.signed)
        return y

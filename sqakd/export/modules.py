"""The modules of a lowered network: integers as buffers, everything else as plain numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from sqakd.export import ops
from sqakd.export.geometry import Geometry
from sqakd.export.graph import module_of
from sqakd.export.integer_input import unsigned_8_bits
from sqakd.export.integer_weight import INT8_HIGH, IntegerWeight, head_room, per_channel
from sqakd.export.stored import StoredInput


class Quantize(nn.Module):
    """The rounding of real values to a layer's stored input integers; any shape."""

    def __init__(self, stored: StoredInput) -> None:
        super().__init__()
        self.stored = stored

    def forward(self, x: Tensor) -> Tensor:
        input = self.stored.input
        return ops.quantize(x, input.origin, self.stored.levels(0, input.levels))


class IntegerSum(nn.Module):
    """A residual sum of two tensors of stored integers, [...] each, as stored integers.

    Args:
        branch: integers of the first operand.
        shortcut: integers of the second operand.
        output: integers of the sum. All three have the same scale.
    """

    def __init__(self, *, branch: StoredInput, shortcut: StoredInput, output: StoredInput) -> None:
        super().__init__()
        self.branch, self.shortcut, self.output = branch, shortcut, output

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        levels = self.output.levels(0, self.output.input.levels)
        return ops.add(branch, shortcut, self.branch.codes, self.shortcut.codes, levels)


class LowerBound(nn.Module):
    """The larger of each real value and one number; any shape."""

    def __init__(self, low: float) -> None:
        super().__init__()
        self.low = low

    def forward(self, x: Tensor) -> Tensor:
        return ops.lower_bound(x, self.low)


class Dequantize(nn.Module):
    """The real values of stored integers; any shape."""

    def __init__(self, stored: StoredInput) -> None:
        super().__init__()
        self.stored = stored

    def forward(self, x: Tensor) -> Tensor:
        return ops.dequantize(x, self.stored.codes)


class IntegerLayer(nn.Module):
    """A convolution or linear layer that reads stored integers.

    Its real output is scale * acc + offset per channel, where acc is the sum of codes times trained integers.

    Args:
        name: name of the layer in the trained network.
        weight: integers of the weight.
        stored: integers of the input.
        scale: real value of one accumulator unit, batch norm and output scale included, float64 [C].
        offset: real value of accumulator 0, float64 [C].
        geometry: geometry of a convolution; None for a linear layer.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor

    def __init__(
        self,
        *,
        name: str,
        weight: IntegerWeight,
        stored: StoredInput,
        scale: Tensor,
        offset: Tensor,
        geometry: Geometry | None,
    ) -> None:
        super().__init__()
        self.name, self.integer_weight, self.stored, self.geometry = name, weight, stored, geometry
        self.scale, self.offset = scale, offset
        self.head_room = head_room(weight.integers, stored.largest_weight)
        self.sign = torch.ones(len(scale), dtype=torch.long)

    @property
    def tensors(self) -> ops.WeightTensors:
        """The weight as operators take it, for layers with a scale and a bias."""
        return ops.WeightTensors(integers=self.weight, scale=self.weight_scale, bias=self.bias)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that build another layer from the same trained layer."""
        return {
            "name": self.name,
            "weight": self.integer_weight,
            "stored": self.stored,
            "scale": self.scale,
            "offset": self.offset,
            "geometry": self.geometry,
        }


class RealOutput(IntegerLayer):
    """A layer from stored integers to real values, for outputs that something other than quantizers reads.

    Args:
        positive_scales: see `sqakd.export.requantization.solve_requantization`.
        **layer: see `IntegerLayer`.
    """

    def __init__(self, *, positive_scales: bool, **layer: Any) -> None:
        super().__init__(**layer)
        self.positive_scales = positive_scales
        # A real output does not need the head-room; it is used here too so that all layers are stored alike.
        weights = self.head_room * self.integer_weight.integers.long()
        shape = per_channel(weights)
        flipped = torch.where((self.scale < 0) & positive_scales, -1, 1)
        # -128 has no counterpart in int8, so a channel that contains it keeps its sign.
        fits = (weights * flipped.view(shape)).flatten(1).amax(dim=1) <= INT8_HIGH
        self.sign = torch.where(fits, flipped, 1)
        self.register_buffer("weight", (weights * self.sign.view(shape)).to(torch.int8))
        scale = self.scale * self.sign / (self.stored.input.scale * self.head_room)
        self.register_buffer("weight_scale", scale.float())
        self.register_buffer("bias", self.offset.float())

    def forward(self, x: Tensor) -> Tensor:
        if self.geometry is None:
            return ops.multiply(x, self.tensors, self.stored.codes)
        return ops.convolve(x, self.tensors, self.stored.codes, self.geometry)

    def with_affine(self, factor: Tensor, shift: Tensor) -> RealOutput:
        """Return this layer followed by y -> factor * y + shift, per output channel [C]."""
        scale = self.scale * factor.double()
        offset = self.offset * factor.double() + shift.double()
        return RealOutput(positive_scales=self.positive_scales, **self.arguments | {"scale": scale, "offset": offset})


class FakeQuantize(nn.Module):
    """The rounding of real values to 256 real values over [low, high], 0 included; any shape.

    Args:
        low: smallest value that occurs.
        high: largest value that occurs.
        signed: whether the integers behind the values are int8 with zero point 0, symmetric around 0.
    """

    def __init__(self, low: float, high: float, *, signed: bool) -> None:
        super().__init__()
        self.signed = signed
        if signed:
            self.scale, self.zero_point = max(-low, high, 1e-12) / INT8_HIGH, 0
        else:
            input = unsigned_8_bits(low, high)
            self.scale, self.zero_point = input.scale, input.zero_point

    def forward(self, x: Tensor) -> Tensor:
        return ops.fake_quantize(x, self.scale, self.zero_point, self.signed)


def integer_layers(module: fx.GraphModule) -> list[IntegerLayer]:
    """Return the layers that compute with integers, in the order in which they run."""
    found = dict.fromkeys(module_of(node) for node in module.graph.nodes)
    return [layer for layer in found if isinstance(layer, IntegerLayer)]

"""The modules of a lowered network: integers as buffers, everything else as plain numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from sqakd.export import ops
from sqakd.export.counted import counted, parts_of_sums
from sqakd.export.errors import ExportError
from sqakd.export.geometry import Geometry
from sqakd.export.graph import module_of
from sqakd.export.integer_input import unsigned_8_bits
from sqakd.export.integer_weight import INT8_HIGH, IntegerWeight, head_room, per_channel
from sqakd.export.requantization import Requantization
from sqakd.export.staircase import reachable_sums
from sqakd.export.stored import StoredInput

STAIRS = ("factor", "shift", "first", "stairs")  # the tensors of `ops.Staircase`


class Quantize(nn.Module):
    """The rounding of real values to a layer's stored input integers; any shape."""

    def __init__(self, stored: StoredInput) -> None:
        super().__init__()
        self.stored = stored

    def forward(self, x: Tensor) -> Tensor:
        input = self.stored.input
        return ops.quantize(x, input.origin, self.stored.levels(0, input.levels))


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
        self.head_room = head_room(weight.integers)
        self.sign = torch.ones(len(scale), dtype=torch.long)

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
            return ops.multiply(x, _tensors(self), self.stored.codes)
        return ops.convolve(x, _tensors(self), self.stored.codes, self.geometry)

    def with_affine(self, factor: Tensor, shift: Tensor) -> RealOutput:
        """Return this layer followed by y -> factor * y + shift, per output channel [C]."""
        scale = self.scale * factor.double()
        offset = self.offset * factor.double() + shift.double()
        return RealOutput(positive_scales=self.positive_scales, **self.arguments | {"scale": scale, "offset": offset})


class LevelOutput(IntegerLayer):
    """A convolution from stored integers to the next layer's stored integers.

    Args:
        solution: the stairs of the output, and the requantization that comes closest to them.
        next: integers of the next layer's input.
        low: lowest level of the output; above 0 behind a clamp that cuts the lowest levels off.
        high: highest level of the output.
        **layer: see `IntegerLayer`.
    """

    def __init__(self, *, solution: Requantization, next: StoredInput, low: int, high: int, **layer: Any) -> None:
        super().__init__(**layer)
        self.solution, self.next, self.low, self.high = solution, next, low, high

    @property
    def wrong_sums(self) -> int:
        """The number of accumulators, of all that any input can produce, that get a wrong level."""
        raise NotImplementedError


class IntegerOutput(LevelOutput):
    """A convolution that requantizes its sums: one factor and one whole bias for each channel.

    Args:
        **layer: see `LevelOutput`.

    Raises:
        ExportError: if a bias cannot be stored in single precision.
    """

    def __init__(self, **layer: Any) -> None:
        super().__init__(**layer)
        solution = self.solution
        self.head_room, self.sign = solution.head_room, solution.sign
        unit = torch.tensor(self.stored.input.scale, dtype=torch.float32) * solution.weight_scale
        self.register_buffer("weight", solution.weight)
        self.register_buffer("weight_scale", solution.weight_scale)
        # The file stores bias * unit in float32, and the runtime divides by the unit again when it builds its integer
        # kernel. The division must give back the same whole number.
        self.register_buffer("bias", (solution.bias.double() * unit.double()).float())
        if not torch.equal((self.bias / unit).round().long(), solution.bias):
            raise ExportError("a bias is too large for single precision")

    @property
    def wrong_sums(self) -> int:
        return int(self.solution.wrong.sum())

    def forward(self, x: Tensor) -> Tensor:
        assert self.geometry is not None
        output = self.next.levels(self.low, self.high)
        return ops.requantize(x, _tensors(self), self.stored.codes, self.geometry, output)


class CountedOutput(LevelOutput):
    """A convolution that counts the stairs below each of its sums: slower, and without a wrong level.

    Args:
        **layer: see `LevelOutput`.

    Raises:
        ExportError: if the sums are too large for single precision.
    """

    turned: Tensor

    def __init__(self, **layer: Any) -> None:
        super().__init__(**layer)
        self.head_room = 1
        # Signed so that each level rises with its sum. The stored integers have that sign, because OpenVINO 2026.4
        # clamps wrongly behind a convolution in 8 bits with a factor of -1.
        rising = torch.where(self.scale < 0, -1, 1)
        integers = self.integer_weight.integers.long()
        signed = integers * rising.view(per_channel(integers))
        parts = parts_of_sums(signed, self.stored.input.code_range)
        assert parts, "such layers are requantized"
        # -128 has no counterpart in int8. The computation in two parts has a sign of its own.
        self.in_two = parts == 2 or int(signed.max()) > INT8_HIGH
        self.sign = torch.ones_like(rising) if self.in_two else rising
        self.register_buffer("weight", (integers if self.in_two else signed).to(torch.int8))
        self.register_buffer("turned", (rising * self.sign).float())
        table = counted(
            self.solution.stairs,
            unit=self.scale.abs(),
            offset=self.offset,
            reachable=reachable_sums(signed, *self.stored.input.code_range),
            output=self.next.input,
            low=self.low,
        )
        for name in STAIRS:
            self.register_buffer(name, getattr(table, name))

    @property
    def wrong_sums(self) -> int:
        return 0

    @property
    def staircase(self) -> ops.Staircase:
        """The stairs as operators take them."""
        tensors = {name: self.get_buffer(name) for name in STAIRS}
        return ops.Staircase(**tensors, low=self.low, high=self.high, gap=self.next.input.gap)

    def forward(self, x: Tensor) -> Tensor:
        assert self.geometry is not None
        weight = ops.SignedWeight(integers=self.weight, sign=self.turned)
        acc = ops.accumulate(x, weight, self.stored.codes.zero_point, self.geometry, self.in_two)
        return ops.count(acc, self.staircase)


def _tensors(layer: RealOutput | IntegerOutput) -> ops.WeightTensors:
    """Return the weight as operators take it."""
    return ops.WeightTensors(integers=layer.weight, scale=layer.weight_scale, bias=layer.bias)


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

"""The two forms of a convolution from stored integers to the next layer's stored integers: requantized and counted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sqakd.export import ops
from sqakd.export.counted import counted, parts_of_sums
from sqakd.export.errors import ExportError
from sqakd.export.integer_weight import INT8_HIGH, per_channel
from sqakd.export.modules import IntegerLayer
from sqakd.export.requantization import Requantization
from sqakd.export.staircase import reachable_sums
from sqakd.export.stored import StoredInput

STAIRS = ("factor", "shift", "first", "stairs")  # the tensors of `ops.Staircase`


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
        return int(self.solution.wrong.sum())


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

    def forward(self, x: Tensor) -> Tensor:
        assert self.geometry is not None
        output = self.next.levels(self.low, self.high)
        return ops.requantize(x, self.tensors, self.stored.codes, self.geometry, output)


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

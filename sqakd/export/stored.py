"""The integers of a layer's input as they lie in memory."""

from __future__ import annotations

from dataclasses import dataclass

from sqakd.export.errors import ExportError
from sqakd.export.integer_input import IntegerInput
from sqakd.export.integer_weight import INT8_HIGH
from sqakd.export.ops import InputCodes, OutputLevels

# x86 processors without VNNI add two products of 8-bit integers in 16 bits, where a larger sum saturates.
PAIR_HIGH = 2**15 - 1
INT8_LEVELS = 128  # what these processors add to signed inputs, because their products have one unsigned factor


@dataclass(frozen=True, kw_only=True)
class StoredInput:
    """An input's integers with their storage type.

    Attributes:
        input: the integers, counted from 0.
        signed: whether they are stored as int8 with zero point 0, which TensorRT requires; otherwise as uint8 from 0.

    Raises:
        ExportError: if the codes do not fit int8 with zero point 0.
    """

    input: IntegerInput
    signed: bool

    def __post_init__(self) -> None:
        if self.signed and (self.input.gap != 1 or self.input.code_range[1] > INT8_HIGH):
            low, high = self.input.code_range
            raise ExportError(
                f"the input codes {low} .. {high} do not fit int8 with zero point 0, the input type of profile=trt",
                topic="export.trt_codes",
                bits=min(7, self.input.bits),
            )

    @property
    def base(self) -> int:
        """The number that is subtracted from every integer before it is stored."""
        return self.input.zero_point if self.signed else 0

    @property
    def codes(self) -> InputCodes:
        """The meaning of the stored integers, for the layer that reads them."""
        return InputCodes(scale=self.input.scale, zero_point=self.input.zero_point - self.base)

    @property
    def largest_weight(self) -> int:
        """The largest integer of a weight whose products with these integers saturate on no processor, at most 127."""
        highest = self.input.gap * self.input.levels - self.base + INT8_LEVELS * self.signed
        return min(INT8_HIGH, PAIR_HIGH // (2 * highest))

    def levels(self, low: int, high: int) -> OutputLevels:
        """Return the rounding to these integers, for the operator that writes them.

        Args:
            low: lowest level that occurs, counted from 0.
            high: highest level.
        """
        return OutputLevels(
            step=self.input.step,
            shift=self.input.shift - self.base,
            low=low - self.base,
            high=high - self.base,
            gap=self.input.gap,
            signed=self.signed,
        )

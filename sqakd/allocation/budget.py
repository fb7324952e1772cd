"""The budget of a network whose bits are chosen: the limits, and the numbers of bits to choose from."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from sqakd.allocation.measure import Criterion, checked_widths
from sqakd.errors import SqakdError
from sqakd.numbers import check_whole, is_number

BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
OPERATIONS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
LIMITS = ("size", "bit_operations", "average_bits")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The limits of a network, at least one, and how its sensitivity is measured.

    Attributes:
        size: largest packed size, in bytes or as text such as "40kB" (1 kB = 1000 bytes).
        bit_operations: largest number of bit-operations for one image, as a number or as text such as "200M".
        average_bits: largest average of the bits, over all weights of the chosen layers, and over all elements of their
            inputs.
        widths: numbers of bits to choose from.
        criterion: "kl" or "curvature", see `sqakd.allocation.measure`.
        images: number of training images on which the sensitivity is measured.

    Raises:
        SqakdError: if an argument has another value.

    Example:
        >>> measured = {"widths": [1, 2, 3, 4, 8], "criterion": "kl", "images": 256}
        >>> budget = Budget(size="40kB", bit_operations="12.5M", average_bits=None, **measured)
        >>> budget.bytes, budget.operations, budget.text()
        (40000, 12500000, 'size=40kB, bit_operations=12.5M')
    """

    size: str | float | None
    bit_operations: str | float | None
    average_bits: float | None
    widths: Sequence[int]
    criterion: Criterion
    images: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", checked_widths(self.widths))
        check_whole("images", self.images)
        if self.criterion not in get_args(Criterion):
            raise SqakdError(f"criterion={self.criterion!r}: expected kl or curvature")
        if self.average_bits is not None and (not is_number(self.average_bits) or not self.average_bits > 0):
            raise SqakdError(f"average_bits={self.average_bits!r}: expected a number above 0")
        _ = self.bytes, self.operations

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return any(getattr(self, name) is not None for name in LIMITS)

    @property
    def bytes(self) -> int | None:
        """Largest packed size in bytes; None if it has no limit."""
        return None if self.size is None else _amount("size", self.size, BYTES, "40kB")

    @property
    def operations(self) -> int | None:
        """Largest number of bit-operations; None if it has no limit."""
        return (
            None if self.bit_operations is None else _amount("bit_operations", self.bit_operations, OPERATIONS, "200M")
        )

    def text(self) -> str:
        """Return the limits as text."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name in LIMITS}
        return ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)


def _amount(name: str, value: Any, units: dict[str, float], example: str) -> int:
    """Return an amount in its smallest unit, rounded down.

    Raises:
        SqakdError: if it is not a positive number, or text of a number and a unit.
    """
    number, unit = value, 1.0
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([A-Za-z]*)\s*", value)
        known = match is not None and match[2] in {*units, ""}
        try:
            number, unit = (float(match[1]), units.get(match[2], 1.0)) if match and known else (math.nan, 1.0)
        except ValueError:
            number = math.nan
    if not is_number(number) or not 0 < number * unit < math.inf:
        accepted = ", ".join(name for name in units if name)
        raise SqakdError(f"{name}={value!r}: expected an amount such as {example}, with one of the units {accepted}")
    return math.floor(number * unit + 1e-6)

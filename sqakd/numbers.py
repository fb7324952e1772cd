"""Tests and checks of the numbers in a configuration, where YAML and the command line may give a value of any type.

The checks are for constructors. Their message begins with the bare name of the argument; the application adds the part
of the configuration that the argument belongs to.
"""

from __future__ import annotations

import math
from typing import Any, TypeGuard

from sqakd.errors import SqakdError

MAX_BITS = 8


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a number; true and false are not.

    Example:
        >>> is_number(0.5), is_number(True), is_number("0.5")
        (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any) -> TypeGuard[int]:
    """Return whether a value is a whole number.

    Example:
        >>> is_whole(2), is_whole(2.0), is_whole(True)
        (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_bits(value: Any) -> TypeGuard[int]:
    """Return whether a value is a number of bits that a quantizer can have: a whole number from 1 to 8.

    Example:
        >>> is_bits(8), is_bits(9), is_bits(2.0)
        (True, False, False)
    """
    return is_whole(value) and 1 <= value <= MAX_BITS


def check_whole(name: str, value: Any, *, minimum: int = 1) -> None:
    """Refuse a value that is not a whole number of at least `minimum`.

    Args:
        name: the argument that has the value.
        value: the value.
        minimum: the smallest number that is accepted.

    Raises:
        SqakdError: if the value is refused.

    Example:
        >>> check_whole("limit", 0)
        Traceback (most recent call last):
            ...
        sqakd.errors.SqakdError: limit=0: expected a whole number of at least 1
    """
    if not is_whole(value) or value < minimum:
        raise SqakdError(f"{name}={value!r}: expected a whole number of at least {minimum}")


def check_not_negative(name: str, value: Any) -> None:
    """Refuse a value that is not a finite number of at least 0.

    Raises:
        SqakdError: if the value is refused.
    """
    if not is_number(value) or not 0 <= value < math.inf:
        raise SqakdError(f"{name}={value!r}: expected a number >= 0")


def check_positive(name: str, value: Any) -> None:
    """Refuse a value that is not a finite number above 0.

    Raises:
        SqakdError: if the value is refused.
    """
    if not is_number(value) or not 0 < value < math.inf:
        raise SqakdError(f"{name}={value!r}: expected a number above 0")


def check_share(name: str, value: Any) -> None:
    """Refuse a value that is not a share of at least 0 and below 1.

    Raises:
        SqakdError: if the value is refused.

    Example:
        >>> check_share("holdout", 0.0)
        >>> check_share("holdout", 1)
        Traceback (most recent call last):
            ...
        sqakd.errors.SqakdError: holdout=1: expected a number from 0 to below 1
    """
    if not is_number(value) or not 0 <= value < 1:
        raise SqakdError(f"{name}={value!r}: expected a number from 0 to below 1")


def check_positive_share(name: str, value: Any) -> None:
    """Refuse a value that is not a share above 0 and of at most 1.

    Raises:
        SqakdError: if the value is refused.
    """
    if not is_number(value) or not 0 < value <= 1:
        raise SqakdError(f"{name}={value!r}: expected a number above 0 and at most 1")

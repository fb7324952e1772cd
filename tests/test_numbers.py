"""Checks of the numbers in a configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from sqakd.errors import SqakdError
from sqakd.numbers import check_not_negative, check_positive, check_positive_share, check_share, check_whole

# For each check, values that it accepts, values that it refuses, and the end of its message.
CASES: dict[Callable[[str, Any], None], tuple[list[Any], list[Any], str]] = {
    check_whole: ([1, 7], [0, -1, 1.0, 1.5, math.inf], "a whole number of at least 1"),
    check_not_negative: ([0, 0.0, 2.5], [-1e-9, math.inf], "a number >= 0"),
    check_positive: ([1e-9, 3], [0, 0.0, -1, math.inf], "a number above 0"),
    check_share: ([0, 0.0, 0.999], [1, 1.0, -0.1], "a number from 0 to below 1"),
    check_positive_share: ([1, 1e-9], [0, 0.0, 1.1], "a number above 0 and at most 1"),
}
NEVER = [True, False, None, "1", [1], math.nan]


@pytest.mark.parametrize("check", CASES)
def test_a_check_accepts_its_numbers_and_names_the_argument_of_all_others(check: Callable[[str, Any], None]) -> None:
    accepted, refused, expected = CASES[check]
    for value in accepted:
        check("x", value)
    for value in refused + NEVER:
        with pytest.raises(SqakdError) as error:
            check("x", value)
        assert str(error.value) == f"x={value!r}: expected {expected}"


def test_the_smallest_whole_number_can_be_chosen() -> None:
    check_whole("padding", 0, minimum=0)
    with pytest.raises(SqakdError, match="padding=7: expected a whole number of at least 8"):
        check_whole("padding", 7, minimum=8)

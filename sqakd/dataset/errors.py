"""The one error of all data sets."""

from __future__ import annotations

from sqakd.errors import SqakdError


class DataError(SqakdError):
    """Missing, damaged or contradictory data; the message says what was found, expected and what to type."""

"""The error that all data sets raise."""

from __future__ import annotations

from sqakd.errors import SqakdError


class DataError(SqakdError):
    """Raised for data that is missing, damaged or contradictory."""

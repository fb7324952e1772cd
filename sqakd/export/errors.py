"""The one error of the export."""

from __future__ import annotations

from sqakd.errors import SqakdError


class ExportError(SqakdError):
    """A network that cannot be exported as asked; the message says what was found and what to type."""

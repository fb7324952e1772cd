"""The one error of the export."""

from __future__ import annotations


class ExportError(ValueError):
    """A network that cannot be exported as asked; the message says what was found and what to type."""

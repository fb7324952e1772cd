"""The error of the export."""

from __future__ import annotations

from sqakd.errors import SqakdError


class ExportError(SqakdError):
    """Raised when a run or a network cannot be exported as requested."""

    def in_layer(self, name: str) -> ExportError:
        """Return the same error with a layer's name in front of its message."""
        return ExportError(f"layer {name}: {self}", topic=self.topic, **self.facts)

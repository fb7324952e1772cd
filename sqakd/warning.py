"""Warnings that name the line outside this package that the reader can change."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path

PACKAGE = Path(__file__).parent


class SqakdWarning(UserWarning):
    """A warning of this package; its commands print it as a line."""


def warn(message: str) -> None:
    """Warn at the line that called this package, whatever was called in between."""
    own = [Path(frame.filename).is_relative_to(PACKAGE) for frame in inspect.stack(context=0)]
    warnings.warn(message, SqakdWarning, stacklevel=len(own) - own[::-1].index(True) + 1)

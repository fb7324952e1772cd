"""Suggestions for a misspelt name."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


def similar(name: str, known: Sequence[str]) -> str:
    """Return "; close: A, B" with the known names that are close to `name`, or "" if none is.

    Example:
        >>> similar("resnet5O", ["resnet50", "vgg11"]), similar("x", ["resnet50"])
        ('; close: resnet50', '')
    """
    matches = get_close_matches(name, known)
    return f"; close: {', '.join(matches)}" if matches else ""

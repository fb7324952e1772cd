"""Suggestions for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Collection

LONGEST_LIST = 30  # longer than any group of conf/


def suggestion(name: str, known: Collection[str]) -> str:
    """Return the known names that resemble a name, or all of them if there are few, as the end of a message.

    Example:
        >>> suggestion("bit", ["bits", "seed"]), suggestion("x", ["bits", "seed"]), suggestion("x", [])
        ('; did you mean bits? expected bits or seed', '; expected bits or seed', '')
    """
    close = difflib.get_close_matches(name, known, n=1)
    parts = [f"did you mean {close[0]}?"] if close else []
    parts += [f"expected {either(sorted(known))}"] if 0 < len(known) <= LONGEST_LIST else []
    return f"; {' '.join(parts)}" if parts else ""


def either(options: list[str]) -> str:
    """Return alternatives as text.

    Example:
        >>> either(["a"]), either(["a", "b"]), either(["a", "b", "c"])
        ('a', 'a or b', 'a, b or c')
    """
    return " or ".join([", ".join(options[:-1]), options[-1]] if len(options) > 1 else options)

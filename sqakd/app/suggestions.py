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
        >>> suggestion("resnet21", ["resnet32", "resnet20"])
        '; did you mean resnet20? expected resnet20 or resnet32'
    """
    close = difflib.get_close_matches(name, known)

    def likeness(other: str) -> tuple[float, int]:  # of two equally close names, the one with more in one piece
        matcher = difflib.SequenceMatcher(a=other, b=name)
        return matcher.ratio(), matcher.find_longest_match().size

    parts = [f"did you mean {max(close, key=likeness)}?"] if close else []
    parts += [f"expected {either(sorted(known))}"] if 0 < len(known) <= LONGEST_LIST else []
    return f"; {' '.join(parts)}" if parts else ""


def either(options: list[str]) -> str:
    """Return alternatives as text.

    Example:
        >>> either(["a"]), either(["a", "b"]), either(["a", "b", "c"])
        ('a', 'a or b', 'a, b or c')
    """
    return " or ".join([", ".join(options[:-1]), options[-1]] if len(options) > 1 else options)

"""Text of commands: names from files made safe to print in one line, times, and the command's own name."""

from __future__ import annotations

import os

# Environment variable with the name of the installed command that runs, e.g. sqakd-train.
PROGRAM = "SQAKD_PROGRAM"


def program(default: str) -> str:
    """Return the name of the installed command that runs.

    Args:
        default: the command in a checkout, e.g. "python train.py".
    """
    return os.environ.get(PROGRAM, default)


def printable(text: object) -> str:
    """Return a text in which characters that control a terminal, or cannot be printed, are escaped.

    Line breaks and single halves of surrogate pairs are escaped too, so the result is one line and can be encoded.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    found = str(text)
    if found.isprintable():
        return found
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in found)


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    Example:
        >>> duration(50), duration(3000), duration(50000), duration(500000)
        ('50 s', '50 min', '13.9 h', '5.8 days')
    """
    for unit, length, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / length:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86_400:.1f} days"

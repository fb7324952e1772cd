"""Text of commands: names from files made safe to print in one line, and the command's own name."""

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

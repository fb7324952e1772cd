"""Text from files, such as names of files and classes, made safe to print in one line."""

from __future__ import annotations


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

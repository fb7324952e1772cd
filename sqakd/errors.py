"""The base class of the errors that a user can cause and fix."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


class SqakdError(ValueError):
    """Bad input: the message says what was found and what was expected, in the words of the library.

    The library does not know how it is called, so a message contains no command-line advice. An application looks up
    what to type by `topic`; `facts` fill the gaps of that advice.

    Args:
        message: what was found and what was expected.
        topic: key of the advice for this error, e.g. "range.empty"; None if the message alone is enough.
        facts: values for the placeholders of the advice.

    Example:
        >>> error = SqakdError("per-channel range is empty: channel 3 is all zero", topic="range.empty", channel=3)
        >>> str(error), error.topic, error.facts
        ('per-channel range is empty: channel 3 is all zero', 'range.empty', {'channel': 3})
    """

    def __init__(self, message: str, *, topic: str | None = None, **facts: object) -> None:
        super().__init__(message)
        self.topic = topic
        self.facts = facts


def raised_in(error: BaseException, room: str) -> bool:
    """Return whether a line of a room of this project raised an exception, which is then a mistake in our code.

    Args:
        error: an exception that another library may have passed on.
        room: folder below the package, e.g. "export".
    """
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE / room)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python or torch could not allocate memory, on a GPU or on the CPU.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA error: out of memory"))
        (True, True)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch
        return True
    # Elsewhere torch raises no class of its own.
    signs = ("out of memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def some(names: Sequence[str]) -> str:
    """Return the first three names and the number of the others, as text for a message.

    Example:
        >>> some(["a", "b"]), some(["a", "b", "c", "d", "e"]), some([])
        ('a, b', 'a, b, c and 2 more', 'nothing')
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more if names else "nothing"


def shown(value: Any) -> str:
    """Return a value as YAML writes it, shortened.

    Example:
        >>> shown(None), shown(True), shown("off"), shown("")
        ('null', 'true', 'off', "''")
    """
    words = {None: "null", True: "true", False: "false", "": "''"}
    text = words[value] if isinstance(value, str | bool | None) and value in words else str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Checked access to the fields of a JSON object; a missing or wrong field is reported in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqakd.errors import SqakdError
from sqakd.files import read_errors
from sqakd.numbers import is_number, is_whole
from sqakd.runs.plain import check_plain, read_limited

LIMIT = 2**63  # of whole numbers; JSON has longer ones, which no float can hold
LARGEST = sys.float_info.max  # a comparison with it, because math.isfinite fails for longer whole numbers


class Fields:
    """The fields of one JSON object.

    Args:
        content: a decoded JSON value; anything but an object is refused.
        path: where the object is inside of its file, e.g. "scores.top1."; empty for the file's own object.

    Raises:
        SqakdError: from the constructor and from all methods, with the field, what was found and what was expected.
    """

    def __init__(self, content: object, path: str = "") -> None:
        if not isinstance(content, dict):
            raise SqakdError(f"{path.rstrip('.') or 'content'}={_short(content)}: expected an object")
        self.content: dict[str, Any] = content
        self.path = path

    def _get(self, key: str, expected: str, accepts: Callable[[Any], bool]) -> Any:
        if key not in self.content:
            raise SqakdError(f"{self.path}{key} is missing: expected {expected}")
        value = self.content[key]
        if not accepts(value):
            raise SqakdError(f"{self.path}{key}={_short(value)}: expected {expected}")
        return value

    def has(self, key: str) -> bool:
        """Return whether a field is there and is not null."""
        return self.content.get(key) is not None

    def text(self, key: str) -> str:
        """Return a string; JSON can have half a character, which cannot be written."""
        return str(self._get(key, "a string", lambda value: isinstance(value, str) and _is_unicode(value)))

    def whole(self, key: str, *, minimum: int = -LIMIT) -> int:
        """Return a whole number."""
        least = "" if minimum == -LIMIT else f" of at least {minimum}"
        return int(self._get(key, f"a whole number{least}", lambda value: is_whole(value) and minimum <= value < LIMIT))

    def number(self, key: str) -> float:
        """Return a finite number."""
        return float(self._get(key, "a finite number", lambda value: is_number(value) and -LARGEST < value < LARGEST))

    def share(self, key: str) -> float:
        """Return a number between 0 and 1."""
        return float(self._get(key, "a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1))

    def flag(self, key: str) -> bool:
        """Return true or false."""
        return bool(self._get(key, "true or false", lambda value: isinstance(value, bool)))

    def plain(self, key: str) -> dict[str, Any]:
        """Return an object as it is, without a check of its fields."""
        found: dict[str, Any] = self._get(key, "an object", lambda value: isinstance(value, dict))
        return found

    def texts(self, key: str) -> dict[str, str]:
        """Return an object whose values are strings."""
        return {name: inner.text(name) for inner in [self.inside(key)] for name in inner.content}

    def whole_lists(self, key: str) -> dict[str, list[int]]:
        """Return an object whose values are lists of whole numbers."""
        inner = self.inside(key)
        for name in inner.content:
            inner._get(
                name, "a list of whole numbers", lambda value: isinstance(value, list) and all(map(is_whole, value))
            )
        return inner.content

    def plain_list(self, key: str) -> list[dict[str, Any]]:
        """Return a list of objects as they are, without a check of their fields."""
        return [inner.content for inner in self.inside_list(key)]

    def optional(self, readers: Mapping[Callable[[str], Any], Sequence[str]]) -> dict[str, Any]:
        """Return the optional fields that are there, by name.

        Args:
            readers: names of optional fields by the method that reads them, e.g. {fields.text: ("device",)}.
        """
        return {name: read(name) for read, names in readers.items() for name in names if self.has(name)}

    def inside(self, key: str) -> Fields:
        """Return the fields of an inner object."""
        return Fields(self.plain(key), f"{self.path}{key}.")

    def inside_list(self, key: str) -> list[Fields]:
        """Return the fields of each object of a list."""
        values = self._get(key, "a list", lambda value: isinstance(value, list))
        return [Fields(value, f"{self.path}{key}[{i}].") for i, value in enumerate(values)]


def read_json(file: Path) -> Any:
    """Return the decoded content of a JSON file.

    Raises:
        SqakdError: if the file cannot be read, is not UTF-8 or is not JSON; the message names only the reason.
        ReadError: if the file cannot be read at present; the message names the file.
    """
    try:
        with read_errors(file):
            content = json.loads(read_limited(file))
    except SqakdError:
        raise
    except OSError as error:
        raise SqakdError(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise SqakdError("not text in UTF-8") from error
    except json.JSONDecodeError as error:
        raise SqakdError(f"not JSON: {error}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or thousands of brackets
        raise SqakdError("JSON with a number that is too long, or nested too deep") from error
    check_plain(content)
    return content


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."

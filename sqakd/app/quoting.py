"""Overrides as Hydra's grammar reads them, and quotes around text that the grammar cannot read otherwise."""

from __future__ import annotations

import re
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

# Text in quotes, or one character.
TOKEN = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|.""", re.DOTALL)
BRACKETS = {"[": "]", "{": "}"}


def parsed(argument: str) -> Override | None:
    """Return an argument of the command line as an override; None if Hydra cannot read it."""
    if argument.startswith("-"):
        return None
    try:
        return OverridesParser.create().parse_override(argument)
    except (HydraException, ValueError):
        return None


def quoted(argument: str) -> str:
    """Return an override as it can be typed in a shell, with quotes around what Hydra could not read.

    Args:
        argument: KEY=VALUE. Quotes are put around the elements of a list and around the values of keys in braces, and
            otherwise around the whole value.

    Example:
        >>> print(quoted("dataset.classes=[zebra,möwe]"), quoted("name=a (1)"))
        'dataset.classes=[zebra,"möwe"]' 'name="a (1)"'
    """
    key, _, value = argument.partition("=")
    made = f"{key}={_with_quotes(value)}"
    return shlex.quote(made if parsed(made) else f"{key}={in_quotes(value)}")


def _with_quotes(value: str) -> str:
    """Return a value with quotes around its parts that Hydra could not read."""
    value = value.strip()
    if parsed(f"key={value}"):
        return value
    opening, closing = value[:1], value[-1:]
    if BRACKETS.get(opening) != closing:
        return in_quotes(value)
    parts = _split(value[1:-1])
    if opening == "[":
        return f"[{','.join(map(_with_quotes, parts))}]"
    pairs = [part.partition(":") for part in parts]
    return f"{{{','.join(f'{name}: {_with_quotes(inner)}' for name, _, inner in pairs)}}}"


def _split(inside: str) -> list[str]:
    """Return the elements of a list, which are separated by commas outside quotes and brackets."""
    parts, depth, place = [""], 0, 0
    while place < len(inside):
        starts = parts[-1].rstrip()[-1:] in "[{(,:"  # elsewhere a quotation mark is a letter, as in l'eau
        found = TOKEN.match(inside, place) if starts else None
        token = found[0] if found else inside[place]
        place += len(token)
        depth += (token in "[{(") - (token in ")}]")
        if token == "," and not depth:
            parts.append("")
        else:
            parts[-1] += token
    return parts


def in_quotes(value: str) -> str:
    """Return a value in quotes; a quotation mark and the backslashes before it or at the end are escaped."""
    escaped = re.sub(r'(\\*)("|$)', lambda match: 2 * match[1] + (match[2] and r"\""), value)
    return f'"{escaped}"'

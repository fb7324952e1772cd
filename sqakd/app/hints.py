"""Types of configured values: whether a value has the type of an annotation, and how a message names the type."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, is_typeddict

from sqakd.app.suggestions import either
from sqakd.numbers import is_number, is_whole
from sqakd.runs.spec import OWN, TARGET

SIMPLE: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", is_whole),
    float: ("a finite number", lambda value: is_number(value) and math.isfinite(value)),
    str: ("text", lambda value: isinstance(value, str)),
    Path: ("text", lambda value: isinstance(value, str)),
    list: ("a list", lambda value: is_list(value)),
    dict: ("keys and values", lambda value: isinstance(value, Mapping)),
    type(None): ("null", lambda value: value is None),
}
PARTS = (OWN, "torch.", "pytorch_lightning.", "lightning_fabric.")
NODE = f"a node with {TARGET}, the class to construct"


def accepts(value: Any, hint: Any) -> bool:
    """Return whether a value has a type; true and false are no numbers, and a whole number is a number."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint in SIMPLE:
        return SIMPLE[hint][1](value)
    if origin is Literal:  # YAML may give the number 8 instead of the text
        return not isinstance(value, bool) and (value in inner or str(value) in inner)
    if origin in (Union, types.UnionType):
        return any(accepts(value, one) for one in inner)
    if is_a(origin, Mapping):
        return isinstance(value, Mapping)
    if origin is tuple and inner and Ellipsis not in inner:
        return is_list(value) and len(value) == len(inner) and all(map(accepts, value, inner))
    if is_a(origin, Collection):
        return is_list(value) and all(accepts(one, inner[0]) for one in value if inner)
    # A node describes any other object. Other packages' types may also have plain values, such as the name of an enum.
    is_node = isinstance(value, Mapping) and TARGET in value
    return is_node or not (is_a(origin, Callable) or _is_part(hint))  # type: ignore[arg-type]


def expected(hint: Any) -> str:
    """Return the description of a type for a message.

    Example:
        >>> expected(bool), expected(int | None), expected(Literal["value", "code"])
        ('true or false', 'a whole number or null', 'value or code')
        >>> expected(Sequence[float]), expected(Callable[..., Any])
        ('a list, each item a finite number', 'a node with _target_, the class to construct')
        >>> expected(bool | Literal["auto"]), expected(bool | None)
        ('true, false or auto', 'true, false or null')
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint in SIMPLE:
        return SIMPLE[hint][0]
    if origin in (Literal, Union, types.UnionType):
        return either(list(dict.fromkeys(_options(hint))))
    if is_typeddict(hint):
        return "keys and values"
    if is_a(origin, Mapping):
        return "keys and values"
    if origin is tuple and inner and Ellipsis not in inner:
        return f"a list of {len(inner)} items: {', '.join(map(expected, inner))}"
    if is_a(origin, Collection):
        return f"a list, each item {expected(inner[0])}" if inner else "a list"
    return NODE


def _options(hint: Any) -> list[str]:
    """Return the descriptions of all alternatives; null comes last."""
    if get_origin(hint) is Literal:
        return [str(one) for one in get_args(hint)]
    if hint is bool:  # two alternatives of their own, as in "true, false or auto"
        return ["true", "false"]
    if len(found := alternatives(hint)) == 1:
        return [expected(hint)]
    return [option for one in sorted(found, key=lambda one: one is type(None)) for option in _options(one)]


def is_a(origin: Any, kind: type) -> bool:
    """Return whether the origin of a generic type, which is None for other types, is a class of a kind."""
    return inspect.isclass(origin) and issubclass(origin, kind)


def _is_part(hint: Any) -> bool:
    """Return whether a type is a class of this project, of torch or of Lightning."""
    return inspect.isclass(hint) and hint.__module__.startswith(PARTS) and not issubclass(hint, Enum)


def is_list(value: Any) -> bool:
    """Return whether a value is a list; text is none."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def is_unquoted(value: Any, hint: Any) -> bool:
    """Return whether text was expected, and the value is text that YAML read as a number or a flag."""
    return isinstance(value, bool | int | float) and (hint is str or str in get_args(hint))


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types that a union joins, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)

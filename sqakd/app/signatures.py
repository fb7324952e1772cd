"""Types of the values in a configuration, checked with the annotations of the constructors that get the values.

YAML and the command line give a value of any type for any key. Without this check, the text "off" would count as true,
and true as the number 1. Each argument has its type in one place, the constructor, so no list of keys is kept here.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from hydra.errors import InstantiationException
from hydra.utils import get_object

from sqakd.app.suggestions import either, suggestion
from sqakd.errors import SqakdError
from sqakd.numbers import is_number, is_whole
from sqakd.runs.spec import OWN, TARGET

# Keys that Hydra itself reads in a node.
RESERVED: dict[str, Any] = {
    TARGET: str,
    "_partial_": bool,
    "_recursive_": bool,
    "_convert_": Literal["none", "partial", "object", "all"],
    "_args_": list[Any],
}
# Arguments that the application adds to the nodes that need them.
SUPPLIED = ("num_classes",)
SIMPLE: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", is_whole),
    float: ("a finite number", lambda value: is_number(value) and math.isfinite(value)),
    str: ("text", lambda value: isinstance(value, str)),
    Path: ("text", lambda value: isinstance(value, str)),
    list: ("a list", lambda value: _is_list(value)),
    dict: ("keys and values", lambda value: isinstance(value, Mapping)),
    type(None): ("null", lambda value: value is None),
}
PARTS = (OWN, "torch.", "pytorch_lightning.", "lightning_fabric.")
NODE = f"a node with {TARGET}, the class to construct"


def check_node(node: Mapping[str, Any], key: str) -> None:
    """Refuse a node whose values do not have the types that the constructor's annotations ask for.

    Args:
        node: plain data with `_target_`.
        key: where the node stands in the configuration, for messages.

    Raises:
        SqakdError: naming the key, the value and the expected type; or if the class does not exist, has no such
            argument, or lacks one.
    """
    signature = _signature(_constructor(node[TARGET], key))
    _check_named({name: node[name] for name in RESERVED if name in node}, RESERVED, key, required=(), closed=True)
    values = {name: value for name, value in node.items() if name not in RESERVED}
    required = set() if node.get("_partial_") or "_args_" in node else signature.required.difference(SUPPLIED)
    _check_named(values, signature.hints, key, required=required, closed=not signature.takes_others)


def check_values(values: Mapping[str, Any], schema: type, key: str = "") -> None:
    """Refuse values that do not have the types of a TypedDict, also unknown and missing keys.

    Args:
        values: plain data.
        schema: a TypedDict.
        key: where the values stand in the configuration, for messages.

    Raises:
        SqakdError: naming the key, the value and the expected type.
    """
    _check_named(values, get_type_hints(schema), key, required=schema.__required_keys__, closed=True)  # type: ignore[attr-defined]


def check_arguments(values: Mapping[str, Any], function: Callable[..., Any], key: str) -> None:
    """Refuse values that a function or a class does not take as arguments.

    Raises:
        SqakdError: naming the key, the value and the expected type.
    """
    _check_named(values, _signature(function).hints, key, required=(), closed=True)


def check_not_nan(config: Mapping[str, Any]) -> None:
    """Refuse NaN in any value: nan differs from itself, so that the run could never be resumed.

    Raises:
        SqakdError: naming the key.
    """
    for place, value in _leaves(config, ""):
        if isinstance(value, float) and math.isnan(value):
            raise SqakdError(f"{place}=nan: expected a number")


def _check_named(
    values: Mapping[str, Any], hints: Mapping[str, Any], key: str, *, required: Collection[str], closed: bool
) -> None:
    prefix = f"{key}." if key else ""
    for name in sorted(required):
        if name not in values:
            raise SqakdError(f"{prefix}{name} is missing: expected {_expected(hints[name])}")
    for name, value in values.items():
        if name in hints:
            _check(value, hints[name], f"{prefix}{name}")
        elif closed:
            raise SqakdError(f"{prefix}{name}={_shown(value)}: no such key{suggestion(name, hints)}")


def _check(value: Any, hint: Any, key: str) -> None:
    """Refuse a value that does not have a type, and check the nodes inside of it."""
    if is_typeddict(hint) and isinstance(value, Mapping):
        check_values(value, hint, key)
    elif not _accepts(value, hint):
        quoted = f"; for text use {key}='\"{_shown(value)}\"'" if _is_unquoted(value, hint) else ""
        raise SqakdError(f"{key}={_shown(value)}: expected {_expected(hint)}{quoted}")
    elif isinstance(value, Mapping) and TARGET in value:
        _check_class(value, hint, key)
        check_node(value, key)
    elif isinstance(value, Mapping):
        types_of_values = [
            get_args(one)[1] for one in _alternatives(hint) if _is_a(get_origin(one), Mapping) and get_args(one)
        ]
        for name, inner in value.items():
            _check(inner, next(iter(types_of_values), Any), f"{key}.{name}")


def _check_class(node: Mapping[str, Any], hint: Any, key: str) -> None:
    """Refuse a node that constructs something else than expected; a function may return anything.

    Where a factory is expected, the node is one that Hydra completes later (`_partial_`), or its objects are functions.
    """
    found, partial = _constructor(node[TARGET], key), bool(node.get("_partial_"))
    factories = [one for one in _alternatives(hint) if _is_a(get_origin(one), Callable)]  # type: ignore[arg-type]
    if partial and not factories and hint is not Any:
        raise SqakdError(f"{key}._partial_=true: expected false, because an object is needed here")
    products = [get_args(one)[-1] for one in factories] if partial else list(_alternatives(hint))
    wanted = [one for one in products if inspect.isclass(one) and one not in (*SIMPLE, Any)]
    if wanted and inspect.isclass(found) and not issubclass(found, tuple(wanted)):
        names = either([one.__name__ for one in wanted])
        raise SqakdError(f"{key}.{TARGET}={node[TARGET]}: expected a class derived from {names}")
    if factories and not partial and inspect.isclass(found) and "__call__" not in dir(found):
        raise SqakdError(f"{key}: expected a factory; use {key}._partial_=true")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types that a union joins, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _constructor(path: object, key: str) -> Callable[..., Any]:
    """Return the class or function of an import path."""
    try:
        found = get_object(path) if isinstance(path, str) else None
    except ModuleNotFoundError as error:
        if error.name and not str(path).startswith(error.name):
            raise SqakdError(f"{key}: {path} needs a package that is not installed: {error.name}") from error
        found = None
    except (ImportError, ValueError, AttributeError, InstantiationException):
        found = None
    if not callable(found):
        raise SqakdError(f"{key}.{TARGET}={_shown(path)}: expected the import path of a class")
    constructor: Callable[..., Any] = found
    return constructor


class _Signature:
    """The arguments of a constructor that are given by name.

    A class that passes `**common` on to its base class has the arguments of the base class too.

    Attributes:
        hints: the type of each argument.
        required: names of the arguments without a default.
        takes_others: whether arguments of other names are accepted.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        self.hints: dict[str, Any] = {}
        self.required: set[str] = set()
        self.takes_others = False
        for function in functions:
            parameters = list(inspect.signature(function).parameters.values())
            annotations = _annotations(function)
            named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]
            new = [p for p in named if p.name not in self.hints]
            self.required |= {p.name for p in new if p.default is p.empty}
            self.hints |= {p.name: annotations.get(p.name, Any) for p in new}
            self.takes_others = any(p.kind is p.VAR_KEYWORD for p in parameters)
            if not self.takes_others:
                break


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function's annotations; none if they name what only a type checker imports."""
    try:
        return get_type_hints(function)
    except NameError:
        return {}


def _signature(target: Callable[..., Any]) -> _Signature:
    if not inspect.isclass(target):
        return _Signature([target])
    classes = [cls for cls in target.__mro__[:-1] if "__init__" in vars(cls)]
    if not target.__module__.startswith(OWN):  # what another package passes on to a base class is not known
        classes = classes[:1]
    return _Signature([vars(cls)["__init__"] for cls in classes])


def _accepts(value: Any, hint: Any) -> bool:
    """Return whether a value has a type; true and false are no numbers, and a whole number is a number."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint in SIMPLE:
        return SIMPLE[hint][1](value)
    if origin is Literal:  # YAML may give the number 8 instead of the text
        return not isinstance(value, bool) and (value in inner or str(value) in inner)
    if origin in (Union, types.UnionType):
        return any(_accepts(value, one) for one in inner)
    if _is_a(origin, Mapping):
        return isinstance(value, Mapping)
    if origin is tuple and inner and Ellipsis not in inner:
        return _is_list(value) and len(value) == len(inner) and all(map(_accepts, value, inner))
    if _is_a(origin, Collection):
        return _is_list(value) and all(_accepts(one, inner[0]) for one in value if inner)
    # A node describes any other object. Other packages' types may also have plain values, such as the name of an enum.
    is_node = isinstance(value, Mapping) and TARGET in value
    return is_node or not (_is_a(origin, Callable) or _is_part(hint))  # type: ignore[arg-type]


def _expected(hint: Any) -> str:
    """Return the description of a type for a message.

    Example:
        >>> _expected(bool), _expected(int | None), _expected(Literal["value", "code"])
        ('true or false', 'a whole number or null', 'value or code')
        >>> _expected(Sequence[float]), _expected(Callable[..., Any])
        ('a list, each item a finite number', 'a node with _target_, the class to construct')
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint in SIMPLE:
        return SIMPLE[hint][0]
    if origin in (Literal, Union, types.UnionType):
        return either(list(dict.fromkeys(_options(hint))))
    if is_typeddict(hint):
        return "keys and values"
    if _is_a(origin, Mapping):
        return "keys and values"
    if origin is tuple and inner and Ellipsis not in inner:
        return f"a list of {len(inner)} items: {', '.join(map(_expected, inner))}"
    if _is_a(origin, Collection):
        return f"a list, each item {_expected(inner[0])}" if inner else "a list"
    return NODE


def _options(hint: Any) -> list[str]:
    """Return the descriptions of all alternatives; null comes last."""
    if get_origin(hint) is Literal:
        return [str(one) for one in get_args(hint)]
    if len(alternatives := _alternatives(hint)) == 1:
        return [_expected(hint)]
    return [option for one in sorted(alternatives, key=lambda one: one is type(None)) for option in _options(one)]


def _is_a(origin: Any, kind: type) -> bool:
    return inspect.isclass(origin) and issubclass(origin, kind)


def _is_part(hint: Any) -> bool:
    """Return whether a type is a class of this project, of torch or of Lightning."""
    return inspect.isclass(hint) and hint.__module__.startswith(PARTS) and not issubclass(hint, Enum)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_unquoted(value: Any, hint: Any) -> bool:
    """Return whether text was expected, and the value is text that YAML read as a number or a flag."""
    return isinstance(value, bool | int | float) and (hint is str or str in get_args(hint))


def _shown(value: Any) -> str:
    """Return a value as YAML writes it, shortened.

    Example:
        >>> _shown(None), _shown(True), _shown("off"), _shown("")
        ('null', 'true', 'off', "''")
    """
    words = {None: "null", True: "true", False: "false", "": "''"}
    text = words[value] if isinstance(value, str | bool | None) and value in words else str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif _is_list(value):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{key}[{i}]")
    else:
        yield key, value

"""Types of the values in a configuration, checked with the annotations of the constructors that get the values.

YAML and the command line give a value of any type for any key. Without this check, the text "off" would count as true,
and true as the number 1. Each argument has its type in one place, the constructor, so no list of keys is kept here.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

from hydra.errors import InstantiationException
from hydra.utils import get_object

from sqakd.app.hints import SIMPLE, accepts, alternatives, expected, is_a, is_list, is_unquoted
from sqakd.app.suggestions import either, suggestion
from sqakd.errors import SqakdError, shown
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
            raise SqakdError(f"{prefix}{name} is missing: expected {expected(hints[name])}")
    for name, value in values.items():
        if name in hints:
            _check(value, hints[name], f"{prefix}{name}")
        elif closed:
            raise SqakdError(f"{prefix}{name}={shown(value)}: no such key{suggestion(name, hints)}")


def _check(value: Any, hint: Any, key: str) -> None:
    """Refuse a value that does not have a type, and check the nodes inside of it."""
    if is_typeddict(hint) and isinstance(value, Mapping):
        check_values(value, hint, key)
    elif not accepts(value, hint):
        quoted = f"; for text use {key}='\"{shown(value)}\"'" if is_unquoted(value, hint) else ""
        raise SqakdError(f"{key}={shown(value)}: expected {expected(hint)}{quoted}")
    elif isinstance(value, Mapping) and TARGET in value:
        _check_class(value, hint, key)
        check_node(value, key)
    elif isinstance(value, Mapping):
        types_of_values = [
            get_args(one)[1] for one in alternatives(hint) if is_a(get_origin(one), Mapping) and get_args(one)
        ]
        for name, inner in value.items():
            _check(inner, next(iter(types_of_values), Any), f"{key}.{name}")


def _check_class(node: Mapping[str, Any], hint: Any, key: str) -> None:
    """Refuse a node that constructs something else than expected; a function may return anything.

    Where a factory is expected, the node is one that Hydra completes later (`_partial_`), or its objects are functions.
    """
    found, partial = _constructor(node[TARGET], key), bool(node.get("_partial_"))
    factories = [one for one in alternatives(hint) if is_a(get_origin(one), Callable)]  # type: ignore[arg-type]
    if partial and not factories and hint is not Any:
        raise SqakdError(f"{key}._partial_=true: expected false, because an object is needed here")
    products = [get_args(one)[-1] for one in factories] if partial else list(alternatives(hint))
    wanted = [one for one in products if inspect.isclass(one) and one not in (*SIMPLE, Any)]
    if wanted and inspect.isclass(found) and not issubclass(found, tuple(wanted)):
        names = either([one.__name__ for one in wanted])
        raise SqakdError(f"{key}.{TARGET}={node[TARGET]}: expected a class derived from {names}")
    if factories and not partial and inspect.isclass(found) and "__call__" not in dir(found):
        raise SqakdError(f"{key}: expected a factory; use {key}._partial_=true")


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
        raise SqakdError(f"{key}.{TARGET}={shown(path)}: expected the import path of a class")
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


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif is_list(value):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{key}[{i}]")
    else:
        yield key, value

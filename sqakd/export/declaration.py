"""One declaration per operator: the signature of its kernel.

torch.library and torch's ONNX exporter accept tensors, numbers and lists of numbers only. A convolution that
requantizes its output has 16 of them. The kernels and translations of this package take a few dataclasses instead, and
`flattened` turns such a function into the one with 16 parameters that the libraries ask for.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, ParamSpec, get_type_hints

import torch
from torch import Tensor

P = ParamSpec("P")
NAMESPACE = "sqakd"


def flattened(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with each dataclass parameter replaced by the fields of that dataclass.

    The new function has an explicit signature: torch.library derives the operator's schema from it, and the ONNX
    exporter decides by its annotations which parameters are attributes of a node and which are inputs.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Line:
        ...     factor: float
        ...     shift: float
        >>> def value(x: float, line: Line) -> float:
        ...     return line.factor * x + line.shift
        >>> hints = {"x": float, "line": Line, "return": float}
        >>> value.__annotations__ = hints
        >>> str(inspect.signature(flattened(value)))
        '(x: float, line_factor: float, line_shift: float) -> float'
        >>> flattened(value)(2.0, 3.0, 1.0)
        7.0
    """
    hints = get_type_hints(function)
    types = {name: hints[name] for name in inspect.signature(function).parameters}
    flat = {name: annotation for parameter, kind in types.items() for name, annotation in _leaves(parameter, kind)}
    signature = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=a) for name, a in flat.items()],
        return_annotation=hints["return"],
    )

    def call(*args: Any, **kwargs: Any) -> Any:
        values = iter(signature.bind(*args, **kwargs).arguments.values())
        return function(*(_build(kind, values) for kind in types.values()))

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__annotations__ = flat | {"return": hints["return"]}
    return call


def operator(kernel: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Register `kernel` as the operator torch.ops.sqakd.NAME, and return the function that calls the operator.

    The kernel is also the operator's fake kernel, from which tracing learns shapes and types. Every kernel here is
    plain torch without a branch on values, so it runs on tensors without data as well.
    """
    flat = flattened(kernel)
    registered = torch.library.custom_op(f"{NAMESPACE}::{kernel.__name__}", flat, mutates_args=())
    registered.register_fake(flat)

    @functools.wraps(kernel)
    def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        assert not kwargs
        result: Tensor = registered(*(leaf for value in args for leaf in _values(value)))
        return result

    return call


def _leaves(name: str, kind: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and annotation of each plain parameter that a parameter stands for."""
    if not is_dataclass(kind):
        yield name, kind
        return
    hints = get_type_hints(kind)
    for field in fields(kind):
        yield f"{name}_{field.name}", hints[field.name]


def _values(value: Any) -> list[Any]:
    """Return the plain values that one argument stands for."""
    if not is_dataclass(value):
        return [value]
    return [getattr(value, field.name) for field in fields(value)]


def _build(kind: Any, values: Iterator[Any]) -> Any:
    """Build one argument from the next plain values; undoes `_values`."""
    if not is_dataclass(kind):
        return next(values)
    assert isinstance(kind, type)
    return kind(**{field.name: next(values) for field in fields(kind)})

"""Bits of single layers, chosen by patterns over the names of the layers.

A pattern is a name with wildcards as in a shell: `layer3.*` matches all layers inside `layer3`, because `*` also
matches dots. If several patterns of one mapping match a layer, the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from sqakd.errors import SqakdError, some
from sqakd.numbers import MAX_BITS, is_bits
from sqakd.warning import warn

Patterns = Mapping[str, int]


class Bits(NamedTuple):
    """Bits of one quantized layer; None stands for those of the scheme."""

    weight: int | None = None
    input: int | None = None


def checked_patterns(key: str, patterns: Any) -> dict[str, int] | None:
    """Return patterns as a plain dictionary; None stays None.

    Args:
        key: the argument that has the patterns, for messages.
        patterns: bits by pattern.

    Raises:
        SqakdError: if a value is not a whole number from 1 to 8.

    Example:
        >>> checked_patterns("layer_bits", {"conv1": 8, "layer3.*": 4})
        {'conv1': 8, 'layer3.*': 4}
    """
    if patterns is None:
        return None
    if not isinstance(patterns, Mapping):
        raise SqakdError(f"{key}={patterns!r}: expected bits by the name of a layer, such as {{conv1: 8}}")
    for pattern, bits in patterns.items():
        if not is_bits(bits):
            raise SqakdError(f"{key}={{{pattern}: {bits}}}: expected a whole number from 1 to {MAX_BITS}")
    return {str(pattern): bits for pattern, bits in patterns.items()}  # names of modules may be numbers


def bits_by_name(
    names: Iterable[str], floats: Mapping[str, str], *, both: Patterns, weights: Patterns, inputs: Patterns
) -> dict[str, Bits]:
    """Return the bits of each layer that a pattern matches. A warning names a layer that has several choices.

    Args:
        names: names of the layers that can be quantized.
        floats: the other parts with weights, as name and kind, for messages.
        both: bits of weight and input, by pattern.
        weights: bits of the weight; they precede those of `both`.
        inputs: bits of the input; they precede those of `both`.

    Raises:
        SqakdError: if a pattern matches no layer.

    Example:
        >>> names = ["conv1", "layer1.conv", "fc"]
        >>> found = bits_by_name(names, {}, both={"layer*": 4, "fc": 8}, weights={"fc": 3}, inputs={})
        >>> {name: tuple(bits) for name, bits in found.items()}
        {'layer1.conv': (4, 4), 'fc': (3, 8)}
    """
    names = list(names)
    common, own_weights, own_inputs = (
        _last_matches(key, patterns, names, floats)
        for key, patterns in (("layer_bits", both), ("layer_w_bits", weights), ("layer_a_bits", inputs))
    )
    found = {}
    for name in names:
        bits = Bits(own_weights.get(name, common.get(name)), own_inputs.get(name, common.get(name)))
        if bits != Bits():
            found[name] = bits
    return found


def _last_matches(key: str, patterns: Patterns, names: list[str], floats: Mapping[str, str]) -> dict[str, int]:
    """Return the bits of the last pattern that matches each name.

    Raises:
        SqakdError: if a pattern matches no name.
    """
    matches: dict[str, list[str]] = {name: [] for name in names}
    for pattern in patterns:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise SqakdError(f"{key} has {pattern!r}, which {_no_match(pattern, names, floats)}")
        for name in matched:
            matches[name].append(pattern)
    several = [name for name, own in matches.items() if len({patterns[pattern] for pattern in own}) > 1]
    if several:
        own = [f"{pattern}: {patterns[pattern]}" for pattern in matches[several[0]]]
        more = f" and {len(several) - 1} more" if several[1:] else ""
        warn(f"{key}: several patterns match {several[0]} ({', '.join(own)}){more}; the last one counts")
    return {name: patterns[own[-1]] for name, own in matches.items() if own}


def _no_match(pattern: str, names: list[str], floats: Mapping[str, str]) -> str:
    """Return the second half of a message about a pattern that matches no layer."""
    stay_float = [f"{name} ({kind})" for name, kind in floats.items() if fnmatchcase(name, pattern)]
    if stay_float:
        return (
            f"matches only parts that stay float, because they are of another kind or are never called:"
            f" {some(stay_float)}"
        )
    if any(name.startswith(f"{pattern}.") for name in names):
        return f"is a module and no layer; {pattern}.* matches all layers in it"
    close = get_close_matches(pattern, names)
    return f"matches no layer; {'similar names are' if close else 'the layers are'} {some(close or names)}"

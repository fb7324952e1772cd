"""The classes that a configuration from a file may name.

A configuration is constructed by calling whatever its `_target_` keys name, and some callables delete files or start
programs. A command is the user's own, so it may name any class. A run folder may come from somebody else, so its
config.yaml may name only the parts of this project and the optimizers and schedules of torch.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import optim

from sqakd.errors import SqakdError
from sqakd.runs.spec import OWN, TARGET

CONSTRUCTED = ("dataset", "model", "quantizer")  # the nodes that an export constructs
ROOMS = ("dataset", "kd", "models", "quantization", "training")  # packages of this project that hold parts of a run
INTERPOLATION = "${"  # OmegaConf replaces "${...}", also by a node with a `_target_` of its own


def check_targets(config: Mapping[str, Any], keys: tuple[str, ...], *, file: Path) -> None:
    """Refuse a configuration whose construction could call anything but parts of this project.

    Args:
        config: plain data.
        keys: the nodes that will be constructed.
        file: the file that the configuration was read from, for the message.

    Raises:
        SqakdError: naming the key and the path found there.
    """
    for key in keys:
        for place, value in _values(config.get(key), key):
            if INTERPOLATION in str(value):
                raise SqakdError(
                    f"{file}: {place} is {value!r}, but the configuration of a run holds plain values",
                    topic="run.foreign_class",
                )
            if _is_foreign(place, value):
                raise SqakdError(
                    f"{file}: {place} is {value!r}, but the configuration of a run may construct only classes of sqakd"
                    " and of torch.optim; expected load(WEIGHTS, NETWORK) with a network of that class in memory,"
                    " quantized like the run by quantize",
                    topic="run.foreign_class",
                )


def foreign_targets(config: Mapping[str, Any], keys: tuple[str, ...]) -> list[str]:
    """Return the classes that `check_targets` refuses, each as "key=path".

    Args:
        config: plain data.
        keys: the nodes that will be constructed.
    """
    values = (pair for key in keys for pair in _values(config.get(key), key))
    return [f"{place}={value}" for place, value in values if _is_foreign(place, value)]


def is_own(path: object) -> bool:
    """Return whether an import path names a part of this project, or an optimizer or a schedule of torch.

    The path's beginning proves nothing, because `sqakd.files.os.mkdir` is a path as well. So the module is imported and
    the object has to be a class that is defined in such a module. The networks of torchvision and timm, and those that
    a user adds to `sqakd.models`, may also be functions.

    Example:
        >>> is_own("sqakd.training.recipe.Recipe"), is_own("torch.optim.SGD"), is_own("sqakd.files.os.mkdir")
        (True, True, False)
    """
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    rooms = tuple(f"{OWN}{room}." for room in ROOMS)
    from_torch = f"{module}.".startswith("torch.optim.")
    if name.startswith("_") or not (from_torch or module.startswith(rooms)):
        return False
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):
        return False
    defined = str(getattr(found, "__module__", ""))
    if from_torch:
        return inspect.isclass(found) and issubclass(found, (optim.Optimizer, optim.lr_scheduler.LRScheduler))
    if inspect.isclass(found):
        return defined.startswith(rooms)
    return inspect.isfunction(found) and defined.startswith(f"{OWN}models.")


def _is_foreign(place: str, value: object) -> bool:
    """Return whether a value is the import path of a class that is not accepted, by its full key."""
    return place.rpartition(".")[2] == TARGET and not is_own(value)


def _values(value: object, key: str) -> Iterator[tuple[str, object]]:
    """Yield the keys and the plain values inside a node, each with its full key; a `_target_` as it is."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            place = f"{key}.{name}"
            yield f"{key}, a key", name
            if name == TARGET:
                yield place, inner
            else:
                yield from _values(inner, place)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _values(inner, f"{key}[{i}]")
    else:
        yield key, value

"""Composition: Hydra's configuration becomes a specification of plain data, and its nodes become objects.

Everything behind the application gets objects and plain data; it never sees a configuration.
"""

from __future__ import annotations

import copy
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import sqakd
from sqakd.app import resolvers
from sqakd.app.overrides import cell_overrides
from sqakd.app.quoting import in_quotes
from sqakd.app.signatures import check_node
from sqakd.errors import SqakdError
from sqakd.numbers import MAX_BITS, is_whole
from sqakd.runs.spec import AUTO, LAYER_BITS, OWN, TARGET, Spec, identity, is_auto, targets

resolvers.register()

PACKAGE = Path(sqakd.__file__).parent
# Values that are paths; "~" at their beginning is the home folder.
PATHS = [
    *(("paths", key) for key in ("runs", "data", "cache")),
    *(("dataset", key) for key in ("folder", "root", "cache")),
    *(("teacher", "checkpoint"), ("", "run"), ("", "folder")),
]
# Groups of conf/train.yaml of which one option is needed, each with an option.
GROUPS = {"dataset": "digits", "model": "resnet20", "model@teacher": "resnet32", "quantizer": "ewgs", "kd": "sqakd"}
GROUPS |= {"recipe": "digits", "recipe@teacher.recipe": "digits_float", "trainer": "auto", "paths": "default"}


# Groups whose choice is no part of a cell, and whose files may name any class.
FREE_GROUPS = ("recipe", "callbacks", "trainer", "experiment", "debug", "hparams", "local")
# Groups of which another choice than a cell's is part of a run's identity, with the node that it fills.
OPTIONAL_CLASSES = {"model@teacher": "teacher.net.", "quantizer/rounding": "quantizer.rounding."}


def spec_of(cfg: DictConfig, hydra: Any, *, complete: bool = True) -> Spec:
    """Return the specification that a composed configuration describes.

    Args:
        cfg: the configuration without its Hydra node.
        hydra: the Hydra node.
        complete: whether every value must be given.

    Raises:
        SqakdError: if a required value or group is missing, or a value cannot be resolved.
    """
    if hydra.job.config_name == "train":
        for group, example in GROUPS.items():
            if not isinstance(hydra.runtime.choices.get(group), str):
                raise SqakdError(f"{group} has no option, or several: expected one, e.g. {group}={example}")
    try:
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise SqakdError(str(error).splitlines()[0]) from error
    assert isinstance(config, dict)
    config.pop("hydra", None)
    for group, key in PATHS:
        node = config.get(group) if group else config
        if isinstance(node, dict) and isinstance(node.get(key), str):
            node[key] = resolvers.home(node[key])
            if not node[key].strip():
                raise SqakdError(f"{group}.{key}=''".lstrip(".") + ": expected a path")
    _set_bits_to_choose(config)
    overrides = resolvers.command_overrides(hydra)
    typed = any(override.lstrip("+~").startswith("quantizer.") for override in overrides)
    if hydra.runtime.choices.get("quantizer") == "none" and not typed:
        config["quantizer"] = None  # also in the float run of an experiment that has values for its students' quantizer
    addons = config.pop("plus", {})
    for name, part in addons.items():
        if not isinstance(part, dict):
            raise SqakdError(f"plus.{name}={part}: expected the values of an add-on; choose add-ons with plus=[NAME]")
    if names := resolvers.addon_names(addons):
        config["plus"] = {name: addons[name] for name in names}
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing and complete:
        raise SqakdError(f"no value for {', '.join(missing)}; use {missing[0]}=VALUE")
    choices = {str(k): str(v) for k, v in hydra.runtime.choices.items() if not str(k).startswith("hydra/")}
    choices.pop("plus", None)  # Hydra omits a group of which several options are chosen
    if names:
        choices["plus"] = "+".join(names)
    return Spec({str(k): v for k, v in config.items()}, choices, overrides)


def _set_bits_to_choose(config: dict[Any, Any]) -> None:
    """Give quantizers whose bits are to be chosen the most bits of the budget, so that they can be constructed."""
    for tensor, key in (("weight", "w_bits"), ("input", "a_bits")):
        quantizer = config.get("quantizer")
        node = quantizer.get(tensor) if isinstance(quantizer, dict) else None
        if config.get(key) == AUTO and isinstance(node, dict) and node.get("bits") == AUTO:
            widths = config["budget"]["widths"] if isinstance(config.get("budget"), dict) else None
            whole = [bits for bits in widths if is_whole(bits)] if isinstance(widths, list) else []
            node["bits"] = max(whole, default=MAX_BITS)


def compose_spec(overrides: Sequence[str], *, complete: bool = True) -> Spec:
    """Compose the specification of another run while one is running; Hydra must be initialised on `conf`.

    A process composes each specification once, because that takes long and the runs of a sweep share their float run.
    """
    return with_classes(_composed(overrides, complete=complete))


def _composed(overrides: Sequence[str], *, complete: bool) -> Spec:
    """Compose a specification without its `classes`."""
    search_path = GlobalHydra.instance().config_loader().get_search_path().get_path()
    folders = tuple((element.provider, element.path) for element in search_path)
    spec = _compose_spec(folders, (*_searched_folders(), *overrides), complete)
    return replace(spec, config=copy.deepcopy(spec.config))


def _searched_folders() -> list[str]:
    """Return the override of the running command that adds folders of configurations; a composition begins without."""
    folders = HydraConfig.get().searchpath if HydraConfig.initialized() else []
    return [f"hydra.searchpath=[{','.join(map(in_quotes, folders))}]"] if folders else []


def with_classes(spec: Spec) -> Spec:
    """Return a specification with its `classes`: those that differ from the classes of its cell."""
    if not any(map(_may_name_a_class, spec.overrides)):  # saves the composition of the cell
        return spec
    plain = _composed(cell_overrides(spec), complete=False)
    known = targets(plain.config)
    other = [node for group, node in OPTIONAL_CLASSES.items() if spec.choices.get(group) != plain.choices.get(group)]
    return replace(
        spec,
        classes={
            key: path
            for key, path in targets(spec.config).items()
            if path.startswith(OWN) and path != known.get(key) and not key.startswith(tuple(other))
        },
    )


def _may_name_a_class(override: str) -> bool:
    """Return whether an override gives a class, or chooses a file that may give one and is no part of a cell."""
    group = override.lstrip("+~").partition("=")[0]
    return TARGET in override or "${" in override or group.partition("@")[0] in FREE_GROUPS


@lru_cache(maxsize=256)
def _compose_spec(folders: object, overrides: tuple[str, ...], complete: bool) -> Spec:
    """Compose a specification; `folders`, where Hydra searches, distinguishes those with equal overrides."""
    cfg = compose("train", overrides=list(overrides), return_hydra_config=True)
    holder = HydraConfig.instance()
    running = holder.cfg
    holder.set_config(cfg)  # the configuration's interpolations read choices from here
    try:
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        return spec_of(own, cfg.hydra, complete=complete)
    finally:
        holder.cfg = running


def changes(spec: Spec) -> dict[str, Any]:
    """Return {key: value} of everything that a run changes besides its choices; empty for a cell as defined."""
    plain = identity(_composed(cell_overrides(spec), complete=False).config)
    own = identity(spec.config)
    own |= spec.classes
    keys = sorted(key for key in plain.keys() | own.keys() if plain.get(key) != own.get(key))
    if is_auto(spec.config):  # the budget is the change, and the bits of the layers follow from it
        keys = [key for key in keys if key.rpartition(".")[2] not in LAYER_BITS]
    return {key: own.get(key) for key in keys if key not in ("name", "seed", "bits")}


def make(node: Mapping[str, Any] | None, key: str, **arguments: Any) -> Any:
    """Construct the object that a node of a configuration describes; None stays None.

    Args:
        node: plain data with `_target_`, and the constructor's keyword arguments.
        key: where the node stands in the configuration, for messages; "" if it stands in none.
        arguments: further keyword arguments of the constructor.

    Raises:
        SqakdError: if the constructor refuses its arguments; the message begins with the key.
    """
    if node is None:
        return None
    if TARGET not in node:
        raise SqakdError(f"{key}: expected {TARGET}, the class to construct")
    check_node(node, key)
    try:
        return instantiate(OmegaConf.create(dict(node)), **arguments)
    except InstantiationException as error:
        cause = _root_cause(error)
        if _is_mistake(cause):
            raise cause from error
        raise _located(error, cause, key) from error


@contextmanager
def located(key: str) -> Iterator[None]:
    """Prefix errors of the block with a key of the configuration.

    Args:
        key: of the node that the block works with; it becomes the beginning of the message.

    Raises:
        SqakdError: in place of the library's own.
    """
    try:
        yield
    except SqakdError as error:
        raise SqakdError(_with_key(key, str(error)), topic=error.topic, **error.facts) from error


def _root_cause(error: BaseException) -> BaseException:
    """Return the constructor's own exception, which Hydra wraps once for each level of nesting."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_mistake(cause: BaseException) -> bool:
    """Return whether an exception is a mistake in this project's code, which deserves a traceback.

    This project refuses arguments with `SqakdError`, and Python refuses unknown ones with `TypeError`. Other libraries
    have errors of their own for arguments that they refuse.
    """
    if isinstance(cause, SqakdError | TypeError | InstantiationException):
        return False
    frames = traceback.extract_tb(cause.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)


def _located(error: InstantiationException, cause: BaseException, key: str) -> SqakdError:
    """Return a constructor's exception as an error about the node that it is about.

    Hydra reports the key below the node as a line "full_key: weight" at the end of its message.
    """
    below = str(error).rpartition("full_key: ")[2].strip() if "full_key: " in str(error) else ""
    message = " ".join((str(cause).splitlines() or [type(cause).__name__])[0].split())
    text = _with_key(f"{key}.{below}" if below else key, message)
    return SqakdError(text, topic=cause.topic, **cause.facts) if isinstance(cause, SqakdError) else SqakdError(text)


def _with_key(key: str, message: str) -> str:
    """Put a key before a message; an argument's name at its beginning becomes part of the key.

    Example:
        >>> _with_key("recipe", "lr=-1: expected a number >= 0"), _with_key("kd", "no weight is positive")
        ('recipe.lr=-1: expected a number >= 0', 'kd: no weight is positive')
    """
    if not key:
        return message
    return f"{key}.{message}" if re.match(r"[a-z_][a-z0-9_.]*(=|: )", message) else f"{key}: {message}"

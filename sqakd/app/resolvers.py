"""Resolvers of the configuration: each is what `${sqakd.NAME:...}` in a file under conf/ calls.

The prefix keeps them apart from those of an application that imports this package.

${sqakd.cell:}               the name of a run, made of its choices and values
${sqakd.row:key,default}     the value that this row of the paper has in rows.yaml, else the default
${sqakd.joined:a,b}          a_b; a where b is null
${sqakd.added:node}          names of the add-ons in a `plus` node, for tags
${sqakd.typed:key,prefix}    the prefix and the value where key=value is on the command line, else nothing
${sqakd.home:path}           the path with the home folder for ~
${sqakd.help:command}        the text of --help of "train" or "export"
${sqakd.jobs:}               how many runs this machine can train at the same time
${sqakd.gpus:}               how many GPUs one run takes
${sqakd.run_folder:}         the folder of the run
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sqakd.app.help import help_text
from sqakd.errors import SqakdError
from sqakd.runs.folder import RunFolder
from sqakd.runs.names import bits_name
from sqakd.runs.spec import TARGET

ROWS = Path(__file__).with_name("rows.yaml")


def cell(config: Mapping[str, Any]) -> str:
    """Return the name of a run's cell: dataset-model-quantizer-w<bits>a<bits>-kd, and the add-ons.

    Another rounding rule and another start of the ranges follow the quantizer, as in ewgs+mse. The folder under runs/
    has this name unless `name` is overridden.

    Args:
        config: the composed configuration; the choices are taken from Hydra.

    Raises:
        SqakdError: if no run is composed, but the folder of a sweep.
    """
    if not HydraConfig.initialized():
        raise SqakdError(
            "the folder of a sweep, which is paths.runs unless hydra.sweep.dir is given, cannot have the name of a run"
            " (${cell}, ${name}); each run has a folder of its own below paths.runs"
        )
    choices = HydraConfig.get().runtime.choices
    quantizer = choices["quantizer"] + typed("quantizer/rounding", "+") + start_name(config.get("quantizer"))
    parts = [choices["dataset"], str(config["model"]["name"]), quantizer, bits_name(config), choices["kd"]]
    add_ons = addon_names(config.get("plus"))
    return "-".join([*parts, *(["+".join(add_ons)] if add_ons else [])])


def start_name(quantizer: Mapping[str, Any] | None) -> str:
    """Return the starts of ranges that are not the paper's, as in a name: +mse, or +wmse for the weights alone.

    Example:
        >>> start_name({"weight": {"start": "mse"}, "input": {"start": "mse"}})
        '+mse'
        >>> start_name({"weight": {"start": "paper"}, "input": {"start": "max"}})
        '+amax'
    """
    nodes = {letter: (quantizer or {}).get(tensor) for letter, tensor in (("w", "weight"), ("a", "input"))}
    starts = {letter: node["start"] for letter, node in nodes.items() if isinstance(node, Mapping) and "start" in node}
    others = {letter: start for letter, start in starts.items() if start not in (None, "paper")}
    if len(others) == len(starts) and len(set(others.values())) == 1:
        return f"+{next(iter(others.values()))}"
    return "".join(f"+{letter}{start}" for letter, start in others.items())


def addon_names(plus: Mapping[str, Any] | None) -> list[str]:
    """Return the sorted names of the add-ons in a `plus` node; values of an add-on that is not chosen do not count."""
    return sorted(name for name, part in (plus or {}).items() if isinstance(part, Mapping) and TARGET in part)


def row(key: str, default: Any, config: Mapping[str, Any]) -> Any:
    """Return the value of `key` in the paper's row that is composed, or the default for any other run.

    Args:
        key: a key of rows.yaml, e.g. "recipe.lr".
        default: value of all rows that do not deviate.
        config: the composed configuration; the choices are taken from Hydra.
    """
    choices = HydraConfig.get().runtime.choices
    # Rows of the paper have the same bits for weights and activations; a run with different ones is none of them.
    bits = config["w_bits"] if config["w_bits"] == config["a_bits"] else None
    return deviations(choices["dataset"], choices["model"], choices["quantizer"], bits).get(key, default)


def deviations(dataset: str, model: str, quantizer: str, bits: int | None) -> dict[str, Any]:
    """Return all values that rows.yaml gives to one cell.

    Example:
        >>> deviations("cifar10", "vgg8", "ewgs", 2)
        {'recipe.epochs': 400, 'teacher.recipe.epochs': 400}
    """
    chosen = {"dataset": dataset, "model": model, "quantizer": quantizer, "bits": str(bits)}
    found: dict[str, Any] = {}
    for cells, values in _rows():
        if all(chosen[key] in options for key, options in cells.items()):
            assert not found.keys() & values.keys(), f"{ROWS.name}: two entries give {cells} the same value"
            found |= values
    return found


@cache
def _rows() -> list[tuple[dict[str, list[str]], dict[str, Any]]]:
    """Read rows.yaml: for each entry the options that it applies to, and its values."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    parsed = []
    for cells, values in entries.items():
        options = dict(part.split("=") for part in cells.split())
        parsed.append(({key: names.split(",") for key, names in options.items()}, values))
    return parsed


def typed(key: str, prefix: str) -> str:
    """Return the prefix and the last value of `key=value` on the command line, or nothing."""
    overrides = HydraConfig.get().overrides.task
    places = [i for i, raw in enumerate(_unresolved(overrides)) if raw.startswith(f"{key}=")]
    return prefix + overrides[places[-1]].partition("=")[2] if places else ""


def command_overrides(hydra: Any) -> tuple[str, ...]:
    """Return the overrides of the command line with their references to other keys resolved, except that of the name.

    Args:
        hydra: the Hydra node of a composed configuration.
    """
    overrides = hydra.overrides.task
    given = enumerate(_unresolved(overrides))
    return tuple(raw if raw.lstrip("+").startswith("name=") else overrides[i] for i, raw in given)


def _unresolved(overrides: Any) -> list[str]:
    """Return overrides as they were given. To resolve 'name=${cell}-a' would ask for them again, without an end."""
    given: list[str] = OmegaConf.to_container(overrides, resolve=False)  # type: ignore[assignment]
    return given


def joined(*parts: str | None) -> str:
    """Return the parts that are not empty, joined by underscores."""
    return "_".join(str(part) for part in parts if part)


def home(path: object) -> str:
    """Return a path with the home folder for ~ at its beginning."""
    return os.path.expanduser(str(path))  # noqa: PTH111  # the method of Path fails if there is no such user


def jobs() -> int:
    """Return the number of GPUs of this machine, or of its CPU cores where it has no GPU."""
    import joblib  # not at the top, because a command begins by composing and imports torch afterwards
    import torch

    return torch.cuda.device_count() or int(joblib.cpu_count())


def register() -> None:
    """Make the resolvers known to OmegaConf; a second call changes nothing."""

    def of_cell(*, _root_: DictConfig) -> str:
        return cell(_root_)

    def of_row(key: str, default: Any, *, _root_: DictConfig) -> Any:
        return row(key, default, _root_)

    def gpus() -> int:
        import torch

        return int(torch.cuda.is_available())

    def run_folder(*, _root_: DictConfig) -> str:
        return str(RunFolder.of(home(_root_.paths.runs), str(_root_.name), _root_.seed).path)

    resolvers: dict[str, Callable[..., Any]] = {"cell": of_cell, "row": of_row, "joined": joined, "added": addon_names}
    resolvers |= {"typed": typed, "home": home, "help": help_text, "jobs": jobs, "gpus": gpus, "run_folder": run_folder}
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(f"sqakd.{name}", resolver, replace=True)

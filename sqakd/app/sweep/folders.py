"""Folders of a sweep's runs: different runs in one folder are refused before the first of them starts.

A run's folder has the name of its cell, which not every value is a part of. With kd.temperature=1,2 the second run
would find the first one in its folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from sqakd.app.compose import compose_spec
from sqakd.app.overrides import CELL
from sqakd.errors import SqakdError
from sqakd.runs.folder import RunFolder
from sqakd.runs.spec import Spec, differences
from sqakd.terminal import printable

SEED, NAME = "seed", "name"
IN_CELL = (*CELL, "plus", "bits", "w_bits", "a_bits", "quantizer/rounding")  # what the name of a cell consists of


class FolderError(SqakdError):
    """A sweep of which different runs would have the same folder."""


def check_folders(jobs: Sequence[Sequence[str]]) -> None:
    """Refuse a sweep over a value that its runs' folders do not depend on.

    A composition takes long, so two runs are composed for each key with several values: the first two that differ in
    this key alone. Keys that are a part of every cell's name need none, unless the command names the runs.

    Args:
        jobs: overrides of each run.

    Raises:
        FolderError: naming the values, and a `name` of which they are a part.
    """
    runs = [dict(override.lstrip("+").partition("=")[::2] for override in job) for job in jobs]
    known = (SEED,) if any(NAME in run for run in runs) else (SEED, *IN_CELL)
    name, folders, changes, named = "", [], [], True
    for key in dict.fromkeys(key for run in runs for key in run if key not in known):
        if (pair := _pair(runs, key)) and (specs := _in_one_folder(*(jobs[i] for i in pair))):
            folders.append(RunFolder.of_spec(specs[0]).path)
            changes += differences(specs[0].identity, specs[1].identity)
            given = re.sub(r"\\(.)", r"\1", runs[pair[0]].get(NAME, "${cell}"))  # Hydra's sweepers escape brackets
            name = f"{name or given}-{_named(key, specs[0])}"
            named = named and _keeps_apart(name, [jobs[i] for i in pair])
    if name:
        advice = f"use 'name={name}'" if named else "start a command for each, with a name=NAME of its own"
        raise FolderError(
            printable(
                f"{folders[0]} would hold different runs of this sweep: {'; '.join(changes)}. Each run needs a folder"
                f" of its own; {advice}"
            )
        )


def _named(key: str, spec: Spec) -> str:
    """Return the part of a name that has the value of a key, e.g. "temperature${kd.temperature}"."""
    value = f"hydra:runtime.choices.{key}" if key in spec.choices else key
    return f"{re.split('[./]', key)[-1]}${{{value}}}"


def _keeps_apart(name: str, jobs: Sequence[Sequence[str]]) -> bool:
    """Return whether runs of this name have folders of their own; slashes of a value, for instance, make none."""
    named = [[*(o for o in job if not o.lstrip("+").startswith(f"{NAME}=")), f"{NAME}={name}"] for job in jobs]
    folders = _folders(named)
    return folders is not None and len(folders) == len(jobs)


def _pair(runs: Sequence[Mapping[str, str]], key: str) -> tuple[int, int] | None:
    """Return the first two runs that differ in the value of one key alone; None if there are none."""
    first: dict[tuple[tuple[str, str], ...], int] = {}
    for i, run in enumerate(runs):
        rest = tuple(item for item in run.items() if item[0] != key)
        if runs[before := first.setdefault(rest, i)].get(key) != run.get(key):
            return before, i
    return None


def _in_one_folder(*jobs: Sequence[str]) -> list[Spec] | None:
    """Return the specifications of runs that are different and have the same folder; None for all others."""
    folders = _folders(jobs)
    if folders is None or len(folders) > 1:
        return None
    specs = [compose_spec(job) for job in jobs]
    return specs if any(differences(specs[0].identity, spec.identity) for spec in specs) else None


def _folders(jobs: Sequence[Sequence[str]]) -> set[Path] | None:
    """Return the folders of runs; None if one cannot be composed or has no name for a folder, which it reports."""
    try:
        return {RunFolder.of_spec(compose_spec(job)).path for job in jobs}
    except (SqakdError, HydraException, OmegaConfBaseException):
        return None

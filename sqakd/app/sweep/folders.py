"""Folders of a sweep's runs: different runs in one folder are refused before the first of them starts.

A run's folder has the name of its cell, which not every value is a part of. With kd.temperature=1,2 the second run
would find the first one in its folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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
    runs = [dict(override.partition("=")[::2] for override in job) for job in jobs]
    known = (SEED,) if any(NAME in run for run in runs) else (SEED, *IN_CELL)
    name, folders, changes = "", [], []
    for key in dict.fromkeys(key for run in runs for key in run if key not in known):
        if (pair := _pair(runs, key)) and (specs := _in_one_folder(*(jobs[i] for i in pair))):
            folders.append(RunFolder.of_spec(specs[0]).path)
            changes += differences(specs[0].identity, specs[1].identity)
            given = re.sub(r"\\(.)", r"\1", runs[pair[0]].get(NAME, "${cell}"))  # Hydra's sweepers escape brackets
            name = f"{name or given}-{_named(key, specs[0])}"
    if name:
        raise FolderError(
            printable(
                f"{folders[0]} would hold different runs of this sweep: {'; '.join(changes)}. Each run needs a folder"
                f" of its own; use 'name={name}'"
            )
        )


def _named(key: str, spec: Spec) -> str:
    """Return the part of a name that has the value of a key, e.g. "temperature${kd.temperature}"."""
    value = f"hydra:runtime.choices.{key}" if key in spec.choices else key
    return f"{key.rpartition('.')[2]}${{{value}}}"


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
    try:
        specs = [compose_spec(job) for job in jobs]
        folders = {RunFolder.of_spec(spec).path for spec in specs}
    except (SqakdError, HydraException, OmegaConfBaseException):  # the run itself reports the error
        return None
    different = any(differences(specs[0].identity, spec.identity) for spec in specs)
    return specs if len(folders) == 1 and different else None

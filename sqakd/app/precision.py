"""The precision of a student's float run: its own, or float32 where only a float32 run is finished.

The precision changes what a training computes, so it belongs to a run's identity. A teacher trained in float32 is as
good for a student in bf16, and its training may have taken days. Both float runs have the same folder, so only one of
them exists, and an interrupted student continues with the teacher that it began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqakd.errors import SqakdError
from sqakd.runs.folder import RunFolder
from sqakd.runs.spec import Spec

FLOAT32 = "32-true"


def available_float_run(own: Spec, inputs: Mapping[str, str] | None = None) -> Spec:
    """Return the float run that a student uses.

    Args:
        own: the float run in the student's own precision.
        inputs: digests of the files that the float run reads, if they are known.

    Returns:
        The same run in float32 if that is finished, because then its folder is taken; else `own`, which is trained if
        need be.
    """
    if precision_of(own) == FLOAT32:
        return own
    float32 = replace(own, config=own.config | {"trainer": own.config["trainer"] | {"precision": FLOAT32}})
    return float32 if _is_finished(replace(float32, inputs=inputs or own.inputs)) else own


def precision_of(spec: Spec) -> str:
    """Return the precision of a run, e.g. "bf16-mixed"."""
    return str(spec.config["trainer"]["precision"])


def precision_note(student: Spec, float_run: Spec) -> str:
    """Return in one line that a student and its float run differ in precision; nothing if they do not."""
    here, there = precision_of(student), precision_of(float_run)
    return "" if here == there else f"float run in precision {there}, student in {here}"


def _is_finished(spec: Spec) -> bool:
    """Return whether exactly this run is finished; a folder that is refused is not."""
    try:
        return RunFolder.of_spec(spec).finished_record(spec) is not None
    except SqakdError:
        return False

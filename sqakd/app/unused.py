"""Overrides that a run ignores.

A run reports them, because its result would seem to depend on them. They are not refused, because an override of a
sweep may be meant for other cells, as kd.temperature=2 in a table that has a row for labels alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqakd.kd.objective import Objective
from sqakd.runs.spec import Spec, is_auto


def unused(spec: Spec, objective: Objective) -> list[str]:
    """Return a line for each override of the command line that has no effect on a run.

    Args:
        spec: of the run.
        objective: of the run.
    """
    ignored = dict(_ignored(spec, objective))
    lines = []
    for override in spec.overrides:
        key = override.lstrip("+").partition("=")[0]
        lines += [
            f"{override} has no effect: {why}" for root, why in ignored.items() if f"{key}.".startswith(f"{root}.")
        ]
    return lines


def _ignored(spec: Spec, objective: Objective) -> Iterator[tuple[str, str]]:
    """Yield keys and groups of the configuration that nothing reads, each with the reason."""
    kd, checkpoint = spec.choices["kd"], spec.config["teacher"]["checkpoint"]
    if not objective.kl:
        for key in ("temperature", "standardize"):
            yield f"kd.{key}", f"kd={kd} has no KL divergence"
    if not objective.ce:
        for key in ("kd.label_smoothing", "recipe.label_smoothing"):
            yield key, f"kd={kd} has no cross-entropy with labels"
    own_student = spec.config["model"]["net"] == spec.config["teacher"]["net"]
    if checkpoint is not None and own_student:
        keys = ["teacher.recipe", "recipe@teacher.recipe"]
        if not is_auto(spec.config):  # else it draws the images on which bits are compared
            keys.append("teacher.seed")
        for key in keys:
            yield key, f"the teacher is read from teacher.checkpoint={checkpoint}"

"""Overrides of related runs: those of a student's float run, and those of its cell without any change."""

from __future__ import annotations

import re

from sqakd.runs.spec import Spec

# Overrides of these groups and keys hold for a student and for its float run alike. All others (quantizer, kd, plus,
# bits, recipe) are the student's own.
SHARED = ("dataset", "experiment", "paths", "trainer", "logger", "callbacks.progress", "debug", "hparams", "local")
# Keys of a model node that say nothing about the network itself.
NOT_NETWORK = ("first", "feature_layers", "checkpoint", "seed", "recipe")
# Groups whose choices define a cell of a table. An experiment is not one of them: what it sets are changed values.
CELL = ("dataset", "model", "quantizer", "kd")
# The teacher's recipe is the recipe of its own float run.
RENAMED = {"teacher.recipe.": "recipe.", "recipe@teacher.recipe=": "recipe="}


def float_run_overrides(spec: Spec, role: str) -> list[str]:
    """Return the overrides that compose the float run of one of a student's networks.

    Args:
        spec: the student.
        role: "model" for the student's own network, "model@teacher" for the teacher's.
    """
    same_network = spec.choices["model"] == spec.choices["model@teacher"]
    # The overrides of the student's network describe its own float run, and the teacher too if both are the same.
    roots = [*(["model."] if role == "model" or same_network else []), *(["teacher."] if role != "model" else [])]
    shared = tuple(f"{root}{end}" for root in SHARED for end in (".", "=", "@", "/"))
    overrides = [o for o in spec.overrides if (bare := o.lstrip("+~")).startswith(shared) or bare in SHARED]
    for old, new in RENAMED.items():
        overrides += [o.replace(old, new, 1) for o in spec.overrides if o.lstrip("+~").startswith(old)]
    for root in roots:  # Hydra takes the last of two overrides of a key, so the teacher's come last
        overrides += [o.replace(root, "model.", 1) for o in spec.overrides if _describes_network(o, root)]
    return [
        *overrides,
        "quantizer=none",
        "bits=32",
        "kd=none",
        "plus=[]",
        f"model={spec.choices[role]}",
        f"seed={spec.config['teacher']['seed']}",
    ]


def cell_overrides(spec: Spec) -> list[str]:
    """Return the overrides of the same choices without any changed value: a cell as the project defines it."""
    overrides = [f"{group}={spec.choices[group]}" for group in CELL if spec.choices.get(group, "None") != "None"]
    overrides += [o for o in spec.overrides if o.startswith("quantizer/rounding=")]
    if add_ons := spec.choices.get("plus"):  # typed, or of an experiment
        overrides.append(f"plus=[{add_ons.replace('+', ',')}]")
    overrides += [o for o in spec.overrides if _describes_network(o, "model.")]
    return [*overrides, *(f"{key}={spec.config[key]}" for key in ("w_bits", "a_bits", "seed"))]


def _describes_network(override: str, root: str) -> bool:
    """Return whether an override such as "model.arch=resnet50" chooses the network below a root such as "model."."""
    bare = override.lstrip("+~")
    return bare.startswith(root) and re.split("[.=]", bare.removeprefix(root))[0] not in NOT_NETWORK

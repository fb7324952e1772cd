"""Checks that need no large package: of the path of a run's folder, and of how a command is run.

A command may run by a sweeper, as a plan, or in several processes.
"""

from __future__ import annotations

import os

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from sqakd.errors import SqakdError, shown
from sqakd.runs.folder import is_folder_name
from sqakd.runs.spec import Spec

PLANS = (False, True, "measure")
SWEEPERS = ("basic", "table")  # the others search for the best result


def check_mode(spec: Spec) -> None:
    """Refuse combinations with Hydra's modes that would go wrong later.

    A search that looks at the test images chooses what fits them by chance. A run of a sweep that starts processes of
    its own would start the sweep again in each of them, unless a scheduler starts the processes.

    Raises:
        SqakdError: naming the override that helps.
    """
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN and shared(spec) and "SLURM_NTASKS" not in os.environ:
        raise SqakdError(
            f"trainer.devices={spec.config['trainer']['devices']} in a sweep, whose runs have one device each; use"
            f" trainer.devices=1 hydra/launcher=joblib for several runs at the same time, or start this run alone"
        )
    sweeper = hydra.runtime.choices.get("hydra/sweeper", "basic")
    if sweeper not in SWEEPERS and not spec.config["dataset"]["holdout"]:
        raise SqakdError(
            f"hydra/sweeper={sweeper} would choose by the validation images, which here give the"
            f" reported result; use dataset.holdout=0.2 to choose by a part of the training images"
        )


def check_folder(spec: Spec) -> None:
    """Refuse values that cannot be a part of the path of the run's folder.

    Raises:
        SqakdError: naming the key and the value.
    """
    for network in ("model", "teacher"):
        if not isinstance(spec.config.get(network), dict):
            raise SqakdError(f"{network} is missing: expected an option of this group, e.g. model=resnet20")
        name = spec.config[network].get("name")
        if not isinstance(name, str) or not is_folder_name(name):
            raise SqakdError(f"{network}.name={name!r}: expected a part of a folder's name, e.g. resnet20")
    if not isinstance(runs := spec.config["paths"]["runs"], str):
        raise SqakdError(f"paths.runs={shown(runs)}: expected text")


def check_plan(spec: Spec) -> None:
    """Refuse a value of `plan` that means nothing.

    Raises:
        SqakdError: naming the values that exist.
    """
    if spec.config["plan"] not in PLANS:
        raise SqakdError(f"plan={spec.config['plan']!r}: expected true, measure or false")


def shared(spec: Spec) -> bool:
    """Return whether several processes train this run together."""
    trainer = spec.config["trainer"]
    return trainer["num_nodes"] > 1 or trainer["devices"] not in (1, "1")

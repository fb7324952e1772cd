"""The applications of Hydra as an installed package has them; train.py and export.py are those of a checkout."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from sqakd.app import start
from sqakd.app.command import run_command
from sqakd.shipped import conf_folder

OWN_FOLDER = Path("conf")  # of the user, in the current folder
OPTIONS = ("--config-dir", "-cd")


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="train")
def train(cfg: DictConfig) -> float | None:
    """Hydra calls this once per run."""
    return start.train(cfg)


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="export")
def export(cfg: DictConfig) -> float | None:
    """Hydra calls this once per run."""
    return start.export(cfg)


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="sensitivity")
def sensitivity(cfg: DictConfig) -> float | None:
    """Hydra calls this once per run."""
    return start.sensitivity(cfg)


def run_sensitivity() -> None:
    """Measure the sensitivity of a float run, with the arguments of this process."""
    _add_own_folder()
    run_command(sensitivity, conf_folder())


def run_train() -> None:
    """Train, with the arguments of this process."""
    _add_own_folder()
    run_command(train, conf_folder())


def run_export() -> None:
    """Export, with the arguments of this process."""
    run_command(export, conf_folder())


def _add_own_folder() -> None:
    """Let Hydra find the user's files in ./conf too, unless the command names another folder."""
    named = any(argument.split("=")[0] in OPTIONS for argument in sys.argv[1:])
    if not named and OWN_FOLDER.is_dir() and OWN_FOLDER.resolve() != conf_folder().resolve():
        sys.argv += ["--config-dir", str(OWN_FOLDER)]

"""Composition for scripts: Hydra reads this project's configuration files, whoever else uses Hydra in the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase

from sqakd.shipped import conf_folder


@contextmanager
def own_configuration() -> Iterator[None]:
    """Let Hydra compose from the shipped files, also inside another application of Hydra, which continues unchanged."""
    running, version = GlobalHydra.instance().hydra, VersionBase.instance().getbase()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = running
        VersionBase.instance().version_base = version

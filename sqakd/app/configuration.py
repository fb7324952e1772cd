"""The folder of the configuration files: part of the installed package, or at the top of a checkout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import sqakd

PACKAGE = Path(sqakd.__file__).parent


def conf_folder() -> Path:
    """Return the folder with train.yaml and export.yaml."""
    shipped = PACKAGE / "conf"
    return shipped if shipped.is_dir() else PACKAGE.parent / "conf"


@contextmanager
def own_configuration() -> Iterator[None]:
    """Let Hydra compose from the shipped files, also inside another application of Hydra, which continues unchanged."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = running

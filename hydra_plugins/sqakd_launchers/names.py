"""Files in conf/hydra/launcher own their names.

The launchers' plugins register a schema for each name, and Hydra would hold a file of the same name to it; but ours
have keys of their own. Where no such file is, in programs that are not ours, the schemas stay.
"""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin

NAMES = ("basic", "joblib", "submitit_slurm", "submitit_local", "ray")


class OwnNames(SearchPathPlugin):
    """Takes the schemas away; Hydra calls it when it has loaded all plugins and read no file yet."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for element in search_path.get_path():
            take_names(Path(element.path.removeprefix("file://")))


def take_names(conf: Path) -> None:
    """Take away the schemas of those names for which there are files."""
    for name in NAMES:
        if (conf / "hydra" / "launcher" / f"{name}.yaml").is_file():
            ConfigStore.instance().repo["hydra"]["launcher"].pop(f"{name}.yaml", None)

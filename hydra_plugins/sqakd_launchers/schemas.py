"""Schemas of other launcher plugins, hidden where this project's own files configure those launchers.

Hydra checks hydra/launcher/joblib.yaml against the schema that the joblib plugin registered under the same name. The
files of this project configure `TrackedLauncher`, whose keys are unknown to that schema. Its removal must not affect
other applications of the same environment, so a schema is hidden only while the search path leads to such a file.
"""

from contextlib import suppress
from pathlib import Path

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin

OWN_TARGETS = "hydra_plugins.sqakd_launchers."
_hidden: dict[str, ConfigNode] = {}  # by file name, as in Hydra's store


class HideSchemas(SearchPathPlugin):
    """The hook by which Hydra announces a search path, after it loaded all plugins and before it reads any file."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        hide_schemas(search_path)


def hide_schemas(search_path: ConfigSearchPath) -> None:
    """Hide the launcher schemas that clash with files of this project, and restore those hidden for another path.

    Args:
        search_path: where Hydra looks for configuration files; it is not changed.
    """
    schemas = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in schemas.keys() | _hidden.keys():
        if _is_own_file(search_path, name):
            if name in schemas:
                _hidden[name] = schemas.pop(name)
        elif name in _hidden:
            schemas.setdefault(name, _hidden.pop(name))


def _is_own_file(search_path: ConfigSearchPath, name: str) -> bool:
    """Whether the launcher file that Hydra would read first configures a launcher of this package."""
    for element in search_path.get_path():
        file = Path(element.path.removeprefix("file://"), "hydra", "launcher", name)
        if file.is_file():
            with suppress(OSError, ValueError, yaml.YAMLError):  # Hydra itself reports a broken file
                content = yaml.safe_load(file.read_text(encoding="utf-8"))
                return isinstance(content, dict) and str(content.get("_target_")).startswith(OWN_TARGETS)
            return False
    return False

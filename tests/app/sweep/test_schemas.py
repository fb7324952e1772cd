"""Other Hydra applications of the same environment behave as without this package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import command
import hydra
import pytest
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from hydra_plugins.sqakd_launchers.schemas import hide_schemas

# Writes what its jobs got to files, because output of concurrent processes has no order.
APP = """
import importlib.util
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base="1.3", config_path="conf", config_name="main")
def main(cfg):
    Path(f"job{cfg.x}.txt").write_text(f"{cfg.x} {HydraConfig.get().launcher}")

if __name__ == "__main__":
    Path("package.txt").write_text(str(importlib.util.find_spec("hydra_plugins.sqakd_launchers") is not None))
    main()
"""
MAIN = """
defaults:
  - _self_
  - override hydra/launcher: joblib
x: 0
hydra:
  output_subdir: null
  sweep: {dir: out, subdir: .}
  hydra_logging: {formatters: {simple: {format: "%(message)s"}}}  # without the time
"""


def write_app(folder: Path, joblib_yaml: str | None) -> None:
    """Write an application that uses the joblib launcher, with or without a file of its own for it."""
    launchers = folder / "conf" / "hydra" / "launcher"
    launchers.mkdir(parents=True)
    (folder / "app.py").write_text(APP)
    (folder / "conf" / "main.yaml").write_text(MAIN)
    if joblib_yaml is not None:
        (launchers / "joblib.yaml").write_text(joblib_yaml)


class Outcome(NamedTuple):
    """The outcome of an application.

    Attributes:
        status: exit code.
        output: both outputs.
        jobs: what each job wrote.
    """

    status: int
    output: str
    jobs: list[str]


def run_app(folder: Path, *options: str, path: Path, finds_package: bool) -> Outcome:
    """Run the application with Python's options and a search path for modules."""
    result = subprocess.run(
        [sys.executable, *options, "app.py", "-m", "x=1,2"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert (folder / "package.txt").read_text() == str(finds_package)
    files = sorted(folder.glob("job*.txt"))
    jobs = [file.read_text() for file in files]
    for file in files:
        file.unlink()
    return Outcome(result.returncode, result.stdout, jobs)


@pytest.mark.parametrize("joblib_yaml", [None, "n_jobs: 2\nverbose: 0\n"], ids=["stock", "own file"])
def test_foreign_application_behaves_as_without_this_package(tmp_path: Path, joblib_yaml: str | None) -> None:
    write_app(tmp_path, joblib_yaml)
    present = run_app(tmp_path, path=command.ROOT, finds_package=True)
    # Without the site module, Python ignores .pth files and with them the editable installation of this package.
    absent = run_app(tmp_path, "-S", path=Path(hydra.__file__).parents[1], finds_package=False)
    assert present == absent
    assert present.status == 0, present.output
    assert [re.findall(r"^\d|'n_jobs': -?\d+|JoblibLauncher", job) for job in present.jobs] == [
        [number, "JoblibLauncher", f"'n_jobs': {-1 if joblib_yaml is None else 2}"] for number in ("1", "2")
    ]


def search_path(*folders: Path) -> ConfigSearchPathImpl:
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    for folder in folders:
        path.append("main", f"file://{folder}")
    return path


@pytest.mark.parametrize("joblib_yaml", [None, "n_jobs: 2", "- a list", "broken: [", "_target_: other.Launcher"])
def test_schemas_are_hidden_only_while_files_of_this_project_are_used(tmp_path: Path, joblib_yaml: str | None) -> None:
    write_app(tmp_path, joblib_yaml)
    Plugins.instance()
    store = ConfigStore.instance()
    hide_schemas(search_path(tmp_path / "conf"))
    before = dict(store.repo["hydra"]["launcher"])
    assert {"basic.yaml", "joblib.yaml"} <= before.keys()
    hide_schemas(search_path(command.ROOT / "conf"))
    assert not {"basic.yaml", "joblib.yaml"} & store.repo["hydra"]["launcher"].keys()
    hide_schemas(search_path(tmp_path / "conf"))
    assert store.repo["hydra"]["launcher"] == before


def test_first_file_of_the_search_path_decides(tmp_path: Path) -> None:
    """Hydra reads the first one, too."""
    write_app(tmp_path, "n_jobs: 2")
    Plugins.instance()
    hide_schemas(search_path(tmp_path / "conf", command.ROOT / "conf"))
    schemas = ConfigStore.instance().repo["hydra"]["launcher"]
    assert "joblib.yaml" in schemas
    assert "basic.yaml" not in schemas
    hide_schemas(search_path(tmp_path / "conf"))

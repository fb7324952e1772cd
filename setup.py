"""The step of a build that pyproject.toml cannot express: files of the checkout that become part of the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithFiles(build_py):
    """Copies conf/ and results/paper.csv into the package; an editable installation reads them in the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib) / "sqakd"
        # conf/local belongs to the machine that builds. An earlier build may have left files that were renamed since.
        shutil.rmtree(package / "conf", ignore_errors=True)
        shutil.copytree("conf", package / "conf", ignore=shutil.ignore_patterns("local", "__pycache__"))
        shutil.copyfile(Path("results", "paper.csv"), package / "paper.csv")


setup(cmdclass={"build_py": BuildWithFiles})

"""The dependencies in pyproject.toml: what an installation without extras can import, and the ranges of versions."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

import command
import pytest
from packaging.requirements import Requirement

PROJECT = tomllib.loads((command.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Files whose packages are an extra: the exporter, and the workspace of the dashboard.
EXTRAS = ("sqakd.export", "sqakd.dashboard.workspace")
# Imports every module in a process in which only some packages exist.
CODE = """
import sys
from importlib.machinery import PathFinder

blocked = set(sys.argv[1].split(","))

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else super().find_spec(name, path, target)

sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
import importlib

for name in sys.argv[2].split(","):
    importlib.import_module(name)
import tempfile

import torch
from torch import nn
import sqakd

network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5))
images = [torch.randn(4, 3, 8, 8)]
sqakd.distill(network, images, epochs=1, progress=False, trainer={"accelerator": "cpu"})
try:
    sqakd.export(network, images[0], "made")
except sqakd.SqakdError as error:
    print(error)
with tempfile.NamedTemporaryFile() as model:
    try:
        sqakd.predict(model.name, "photo.png")
    except sqakd.SqakdError as error:
        print(error)
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def needed(name: str) -> frozenset[str]:
    """Return a distribution and all that it requires without extras, as far as they are installed."""
    found, waiting = set(), [name]
    while waiting:
        one = canonical(waiting.pop())
        if one in found:
            continue
        found.add(one)
        try:
            requirements = [Requirement(text) for text in distribution(one).requires or ()]
        except PackageNotFoundError:
            continue
        waiting += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return frozenset(found)


def modules() -> list[str]:
    """Return the names of all modules of the package that need no extra."""
    files = [file for file in (command.ROOT / "sqakd").rglob("*.py") if file.name != "__main__.py"]
    names = [".".join(file.relative_to(command.ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return sorted(n for n in names if not any(n == extra or n.startswith(f"{extra}.") for extra in EXTRAS))


def test_the_package_works_without_extras() -> None:
    core = frozenset().union(*(needed(Requirement(text).name) for text in PROJECT["dependencies"]))
    blocked = {
        module
        for module, distributions in packages_distributions().items()
        if not {canonical(name) for name in distributions} & (core | {"sqakd", "pip", "setuptools"})
    }
    assert {"onnx", "onnxruntime", "pytest"} <= blocked
    assert not {"torch", "hydra", "numpy", "PIL"} & blocked
    done = command.script("-c", CODE, ",".join(sorted(blocked)), ",".join(modules()), folder=command.ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the export needs a package that is not installed" in done.stdout
    assert "a prediction needs the package onnxruntime; use pip install onnxruntime" in done.stdout


@pytest.mark.parametrize("text", PROJECT["dependencies"])
def test_the_installed_version_is_within_its_range(text: str) -> None:
    requirement = Requirement(text)
    assert requirement.specifier.contains(distribution(requirement.name).version, prereleases=True)

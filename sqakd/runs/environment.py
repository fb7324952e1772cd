"""The code, the packages and the device that compute a result."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch

import sqakd

# Names in a record of the packages that train, and what they are installed as.
TRAINING_PACKAGES = {"torch": "torch", "lightning": "pytorch-lightning"}


# The files of a checkout that decide what a run computes. Others may differ from the commit: the report and the
# benchmarks write into results/ and README.md, which does not make the next run another one.
CODE = ("sqakd", "conf", "hydra_plugins", "train.py", "export.py", "pyproject.toml")


def commit() -> str | None:
    """Return the git commit of the code, with a "+" if a file of `CODE` differs from it; None outside a checkout."""
    file = Path(__file__)
    try:
        # An installed package may lie below somebody else's checkout, whose commit is not ours.
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        head = _git(file.parent, "rev-parse", "HEAD")
        different = _git(file.parents[2], "status", "--porcelain", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(different)


def _git(folder: Path, *arguments: str) -> str:
    """Return what git prints. Without the optional lock, concurrent runs do not disturb each other."""
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def device_name(device: torch.device) -> str:
    """Return the name of a device; for a processor its model, where the operating system reports one."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        with suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "cpu")
    return device.type


def training_versions() -> dict[str, str]:
    """Return the versions of sqakd, Python and the packages that train."""
    found = package_versions(TRAINING_PACKAGES)
    return {"sqakd": found.pop("sqakd"), "python": platform.python_version()} | found


def package_versions(packages: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of sqakd and of other packages.

    Args:
        packages: the name to return each version under, and what the package is installed as.
    """
    return {"sqakd": sqakd.__version__} | {name: version(package) for name, package in packages.items()}

"""A folder of compiled code, which all runs share and which outlives the process.

torch finds compiled code by the graph that it was compiled from. The folder's name also contains a digest of the
quantizers, because their gradients are written by hand, and torch stores such graphs only on request. The folder also
keeps how long each kind of step took to compile and to run, from which later runs estimate whether compilation pays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path

import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

import sqakd.quantization
from sqakd.errors import SqakdError
from sqakd.files import write_text
from sqakd.numbers import is_number

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # names torch's folder of compiled code
_opened: set[str] = set()  # folders that this process set there


@dataclass(frozen=True)
class Times:
    """Measured seconds of one kind of training step; None where nothing was measured.

    Attributes:
        cold: compilation without compiled code in the folder.
        warm: compilation with it: torch traces the step and loads the code.
        eager: one eager step.
        compiled: one compiled step.
    """

    cold: float | None = None
    warm: float | None = None
    eager: float | None = None
    compiled: float | None = None


class CodeCache:
    """The compiled code of all runs with the same version of torch and of the quantizers.

    Args:
        folder: folder of all versions.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / f"compiled-{version()}"
        self.file = self.folder / "times.json"

    def open(self) -> str:
        """Let torch keep compiled code in the folder from now on, unless the user chose another one for torch.

        Returns:
            Why the folder cannot be used; "" if it can be used.
        """
        # Graphs with our own gradients may be stored only where the folder's name has the digest.
        torch._functorch.config.autograd_cache_allow_custom_autograd_functions = False
        if _chosen_by_user():
            return ""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            os.environ.pop(VARIABLE, None)
            return f"compiled code is not kept for later runs: cannot write to {self.folder}: {error.strerror}"
        os.environ[VARIABLE] = str(self.folder.absolute())
        _opened.add(os.environ[VARIABLE])
        torch._functorch.config.autograd_cache_allow_custom_autograd_functions = True
        return ""

    def times(self, kind: str) -> Times:
        """Return what is known about a kind of step."""
        return self._read().get(kind, Times())

    def remember(self, kind: str, **seconds: float) -> None:
        """Store measured times of a kind of step, if the folder can be written.

        Two processes that write at the same moment may lose one entry, which a later run measures again.
        """
        known = self._read()
        known[kind] = replace(known.get(kind, Times()), **{name: round(value, 4) for name, value in seconds.items()})
        text = json.dumps({name: asdict(times) for name, times in sorted(known.items())}, indent=1)
        with contextlib.suppress(OSError, SqakdError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.file, text)

    def _read(self) -> dict[str, Times]:
        """Return all known times; a missing or damaged file has none."""
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
            names = [field.name for field in fields(Times)]
            return {kind: Times(**{name: _seconds(times[name]) for name in names}) for kind, times in found.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}


def _chosen_by_user() -> bool:
    """Return whether the environment names a folder for torch that neither torch itself nor this module has set."""
    folder = os.environ.get(VARIABLE)
    return folder is not None and Path(folder) != Path(default_cache_dir()) and folder not in _opened


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if not is_number(value) or not float(value) > 0:
        raise ValueError(value)
    return float(value)


@cache
def version() -> str:
    """Return a short digest of everything besides a graph that decides which code is compiled from the graph."""
    digest = hashlib.sha256(torch.__version__.encode())
    for file in sorted(Path(sqakd.quantization.__path__[0]).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]

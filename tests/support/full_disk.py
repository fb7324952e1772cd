"""train.py where no run can write its configuration, as on a full disk."""

from __future__ import annotations

import runpy
import sys

import command
import pytest

from sqakd.files import WriteError
from sqakd.runs.folder import RunFolder


def refuse(*_: object) -> None:
    raise WriteError("cannot write config.yaml: No space left on device")


if __name__ == "__main__":
    pytest.MonkeyPatch().setattr(RunFolder, "claim", refuse)
    script = str(command.ROOT / "train.py")
    sys.argv[0] = script
    runpy.run_path(script, run_name="__main__")

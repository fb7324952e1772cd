"""The process that measures a runtime, where it ends too early."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sqakd.export.errors import ExportError
from sqakd.export.measured_process import MeasuredProcess


@pytest.mark.parametrize("program", ["", "import sys; sys.stdin.readline()"], ids=["before", "while"])
def test_a_runtime_that_ends_is_named(program: str) -> None:
    made = object.__new__(MeasuredProcess)
    made.name, made.times = "ONNX Runtime exact", {1: []}
    made.process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if not program:
        made.process.wait()
    with pytest.raises(ExportError, match=r"^ONNX Runtime exact ended while its speed was measured"):
        made.measure(1, 0.1)
    made.end()

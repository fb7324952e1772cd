"""No code of a training step makes a tensor on the CPU and moves it, or reads a tensor there: a search of the source.

The tests on made-up devices (`tests/training/test_device_step.py`) see only what they run. This search sees every
branch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import command
import pytest

# Files of which a training step runs any function, except for those listed below.
FILES = [
    *("kd/*.py", "dataset/transforms/*.py", "quantization/quantizers/*.py", "quantization/layers.py"),
    "quantization/residual.py",
    *("training/task.py", "training/metrics.py", "training/callbacks/dampening.py", "training/callbacks/ema.py"),
]
# Functions of these files that may make or read tensors on the CPU, and why: most run once, not in a step.
OUTSIDE = {
    "__init__": "constructors: modules move to the device afterwards",
    "draw": "random numbers of an augmentation are drawn on the CPU, so that they do not depend on the device",
    "grid": "statistics and export",
    "get_extra_state": "checkpoints",
    "on_train_start": "the averages of a checkpoint move to the device",
    "from_float": "as constructors",
    "gather_ranks": "several devices with a memory bank: the batch sizes of all ranks, which may differ (docs/gpu.md)",
    "search_range": "calibration",
}
FACTORIES = {"arange", "as_tensor", "empty", "eye", "from_numpy", "full", "linspace", "logspace", "ones", "rand"}
FACTORIES |= {"randint", "randn", "randperm", "scalar_tensor", "tensor", "zeros"}
READERS = {"cpu", "cuda", "item", "masked_select", "nonzero", "numpy", "tolist", "unique", "unique_consecutive"}


def faults(source: str) -> Iterator[tuple[str, str]]:
    """Yield function and code of each tensor that is made on the CPU, moved or read, in functions of a step."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_fault(node, node.func):
                    yield function.name, ast.unparse(node)


def _is_fault(call: ast.Call, called: ast.Attribute) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    if ast.unparse(called.value) == "torch" and called.attr in FACTORIES:
        return "device" not in {keyword.arg for keyword in call.keywords}
    return called.attr in READERS or (called.attr == "to" and any("device" in ast.unparse(value) for value in given))


def files() -> list[Path]:
    return sorted(file for pattern in FILES for file in (command.ROOT / "sqakd").glob(pattern))


def test_step_makes_moves_and_reads_no_tensor_on_the_cpu() -> None:
    found = [(file.name, *fault) for file in files() for fault in faults(file.read_text(encoding="utf-8"))]
    assert [fault for fault in found if fault[1] not in OUTSIDE] == []
    assert {name for _, name, _ in found} == set(OUTSIDE), "a function that needs no exception"


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("torch.tensor(1.0)", True),
        ("torch.tensor(1.0, device=x.device)", False),
        ("torch.zeros(3).to(x.device)", True),
        ("x.to(x.device)", True),
        ("x.to(device=device)", True),
        ("x.to(torch.int16)", False),
        ("x.new_zeros(3)", False),
        ("x.sum().item()", True),
    ],
)
def test_fault_is_found(code: str, fault: bool) -> None:
    assert bool(list(faults(f"def f(x):\n    return {code}"))) == fault

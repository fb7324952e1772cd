"""Settings for all tests, and the option `--quick`.

`make quick` runs `pytest --quick`, which omits tests that train with Lightning or start another process, such as a
command or a browser, and tests marked `exhaustive`. Of each parametrized test it runs at most two cases.
"""

from __future__ import annotations

import gc
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import pytest

# Set before any test imports torch. Test files run concurrently, so each process gets one thread, and waiting threads
# must not spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

CASES = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help=f"omit tests that train, start a process or are exhaustive; run at most {CASES} cases of each other test",
    )


def spread(count: int, wanted: int) -> set[int]:
    """Return `wanted` of the numbers 0 .. count - 1, evenly spread and including the first and the last.

    Example:
        >>> sorted(spread(10, 4)), sorted(spread(2, 4))
        ([0, 3, 6, 9], [0, 1])
    """
    return {round(i * (count - 1) / (wanted - 1)) for i in range(wanted)}


@pytest.hookimpl(trylast=True)  # after the selection by marker, so that all cases chosen here are run
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("quick"):
        return
    tests: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in (item for item in items if not item.get_closest_marker("exhaustive")):
        tests[item.nodeid.partition("[")[0]].append(item)
    kept = {cases[i] for cases in tests.values() for i in spread(len(cases), CASES)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def pytest_collection_finish() -> None:
    """Leave the objects that exist now out of garbage collection, and collect others less often, to save time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def skip(*_: object, **__: object) -> NoReturn:
    pytest.skip("trains or starts another process")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """With `--quick`, skip a test as soon as the test, or one of its fixtures, trains or starts another process."""
    if not item.config.getoption("quick"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", skip)
        patch.setattr(BaseProcess, "start", skip)
        patch.setattr("pytorch_lightning.Trainer.fit", skip)
        return (yield)

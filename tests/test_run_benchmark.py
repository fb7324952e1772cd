"""benchmarks/run.py: its phases name functions that exist, and the time of a phase is its own."""

from __future__ import annotations

import functools
import importlib
import pickle
import runpy
from pathlib import Path
from types import SimpleNamespace

import command
import pytest

RUN = SimpleNamespace(**runpy.run_path(str(command.ROOT / "benchmarks" / "run.py")))


@pytest.mark.parametrize("phase", RUN.PHASES)
def test_each_phase_names_functions_that_exist(phase: str) -> None:
    for module, name in RUN.PHASES[phase]:
        assert callable(functools.reduce(getattr, name.split("."), importlib.import_module(module)))


def test_an_inner_phase_interrupts_the_outer_one() -> None:
    times = iter([1, 3, 7, 12])
    watch = RUN.Stopwatch(lambda: float(next(times)))
    owner = SimpleNamespace(inner=lambda: None)
    owner.outer = lambda: owner.inner()
    watch.wrap(owner, "inner", "inner")
    watch.wrap(owner, "outer", "outer")
    owner.outer()
    assert watch.seconds == {"rest": 1, "outer": 2 + 5, "inner": 4}


def test_made_images_have_the_form_of_cifar(tmp_path: Path) -> None:
    RUN.make_cifar(tmp_path, 20)
    content = pickle.loads((tmp_path / "data/cifar-10-batches-py/data_batch_3").read_bytes())  # made above
    assert content["data"].shape == (4, 3072)
    assert len(content["labels"]) == 4

"""What a command prints before it imports large packages, and how it imports them."""

from __future__ import annotations

import gc
from pathlib import Path

import command
import pytest
from lightning_utilities.core.rank_zero import rank_zero_only

from sqakd.app.console import say
from sqakd.app.start import large_imports

# Runs a script that ends as soon as it imports a package that takes long.
STOPS_AT_IMPORTS = """
import os, runpy, sys

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "numpy", "pytorch_lightning", "torchmetrics", "matplotlib", "sklearn", "joblib"):
            print("large imports", flush=True)
            os._exit(3)

sys.meta_path.insert(0, Stop())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["train.py", "name=mine", "seed=3"], "run runs/mine/seed3\nlarge imports\n"),
        (["train.py", "seed=0,1", "-m"], "sweep: seed=0,1\nlarge imports\n"),
        (["train.py", "bits=1,2", "plan=true", "-m"], "sweep: bits=1,2 plan=true\nlarge imports\n"),
        (["train.py", "name=mine", "plan=true"], "plan of runs/mine/seed0\nlarge imports\n"),
        (["export.py", "run=there", "benchmark.rounds=0"], "exporting there as exact\nlarge imports\n"),
        (
            ["export.py", "run=there"],
            "exporting there as exact, with a measurement of its speed, "
            "which takes minutes (benchmark.rounds=0 omits it)\nlarge imports\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_says_first_what_it_will_do(arguments: list[str], printed: str, tmp_path: Path) -> None:
    done = _script(arguments, tmp_path)
    assert done == (3, printed, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.py", "bit=2"], "bit=2: no such key; "),
        (["train.py", "name=.hidden"], "name='.hidden': expected the name of a folder"),
        (["export.py"], "no value for run; "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_configuration_alone_shows_is_refused_before_large_imports(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    status, out, error = _script(arguments, tmp_path)
    assert (status, out) == (1, "")
    assert error.startswith(f"error: {message}")


def test_a_composed_configuration_is_printed_without_large_imports(tmp_path: Path) -> None:
    status, out, _ = _script(["train.py", "--cfg", "job"], tmp_path)
    assert status == 0
    assert out.startswith("bits: 2\n")


def _script(arguments: list[str], folder: Path) -> tuple[int, str, str]:
    script, *rest = arguments
    done = command.script("-c", STOPS_AT_IMPORTS, str(command.ROOT / script), *rest, folder=folder)
    return done.returncode, done.stdout, done.stderr


def test_only_the_first_imports_are_kept_from_collections() -> None:
    """Later, the garbage of the process would be kept as well."""
    gc.unfreeze()  # an earlier test in this process may have run a command
    try:
        with large_imports():
            assert not gc.isenabled()
        assert gc.isenabled()
        frozen = gc.get_freeze_count()
        assert frozen > 0
        with large_imports():
            assert gc.isenabled()
        assert gc.get_freeze_count() <= frozen
    finally:
        gc.unfreeze()


def test_a_failed_import_leaves_collections_on() -> None:
    try:
        with pytest.raises(ImportError), large_imports():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
@pytest.mark.parametrize("rank", [0, 1])
def test_only_rank_0_speaks_also_before_lightning_knows_the_rank(
    name: str, rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(rank_zero_only, "rank", raising=False)
    for other in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, str(rank))
    say("run")
    assert capsys.readouterr().out == ("" if rank else "run\n")

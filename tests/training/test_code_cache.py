"""The folder of compiled code: another process finds the code, and a folder that cannot be used stops no run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import command
import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

import sqakd.quantization
from sqakd.training import code_cache
from sqakd.training.code_cache import VARIABLE, CodeCache, Times

# One quantized step of a tiny network with a teacher; prints torch's counters and a checksum of the gradients.
STEP = """
import sys, torch, small
from torch._dynamo.utils import counters
from sqakd.training.code_cache import CodeCache
from pathlib import Path
cache = CodeCache(Path(sys.argv[1]))
assert cache.open() == ""
from sqakd.quantization.calibrate import calibrate
from sqakd.quantization.convert import quantize
torch.manual_seed(0)
student = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3, bias=False), torch.nn.ReLU(),
    torch.nn.Flatten(), torch.nn.Linear(64, 10),
)
teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
quantize(student, small.scheme("quantizer=ewgs"))
calibrate(student, small.batch(8))
task = small.make_task(student, teacher, "quantizer=ewgs")
step = task.compile_losses(size=8)
task.losses(small.batch(8), None)["loss"].backward()
total = sum(p.grad.double().sum() for p in student.parameters() if p.grad is not None).item()
assert list(cache.folder.glob("aotautograd/*"))
print(total.hex(), dict(counters["aot_autograd"]).get("autograd_cache_hit", 0), step.cold)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler")
def test_a_second_process_finds_the_compiled_code_and_computes_the_same(tmp_path: Path) -> None:
    first, second = (command.script("-c", STEP, str(tmp_path), folder=tmp_path) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    total, hits, cold = first.stdout.split()
    assert (hits, cold) == ("0", "True")
    assert second.stdout.split() == [total, "1", "False"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, default_cache_dir())  # as torch sets it; restored after the test


def test_torch_keeps_its_code_in_the_folder(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path / "cache")
    assert cache.open() == ""
    assert Path(os.environ[VARIABLE]) == cache.folder
    assert cache.folder.parent == tmp_path / "cache"
    other = CodeCache(tmp_path / "other")
    assert other.open() == ""
    assert Path(os.environ[VARIABLE]) == other.folder, "a later run of the process may have another folder"
    assert torch._functorch.config.autograd_cache_allow_custom_autograd_functions


def test_a_folder_that_the_user_chose_for_torch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "elsewhere")
    assert CodeCache(tmp_path).open() == ""
    assert os.environ[VARIABLE] == "elsewhere"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the place of the folder")
    cache = CodeCache(tmp_path / "cache")
    assert cache.open() == f"compiled code is not kept for later runs: cannot write to {cache.folder}: Not a directory"
    assert VARIABLE not in os.environ, "torch uses its own folder"
    cache.remember("kind", cold=1.0)
    assert cache.times("kind") == Times()


def test_times_are_kept_by_kind_and_completed(tmp_path: Path) -> None:
    CodeCache(tmp_path).remember("a", cold=60)
    CodeCache(tmp_path).remember("b", cold=70)
    CodeCache(tmp_path).remember("a", eager=0.2, compiled=0.1)
    assert CodeCache(tmp_path).times("a") == Times(cold=60, eager=0.2, compiled=0.1)
    assert CodeCache(tmp_path).times("b") == Times(cold=70)
    assert CodeCache(tmp_path).times("c") == Times()


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"cold": "1"}}', '{"a": {"cold": -1}}', '{"a": {}}'])
def test_damaged_times_count_as_unknown(text: str, tmp_path: Path) -> None:
    cache = CodeCache(tmp_path)
    cache.remember("a", cold=60)
    cache.file.write_text(text)
    assert cache.times("a") == Times()


def test_other_code_or_another_torch_has_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code_cache.version.cache_clear()
    before = CodeCache(tmp_path).folder
    monkeypatch.setattr(torch, "__version__", "other")
    code_cache.version.cache_clear()
    assert CodeCache(tmp_path).folder != before
    monkeypatch.undo()
    code_cache.version.cache_clear()
    copy = tmp_path / "quantization"
    shutil.copytree(sqakd.quantization.__path__[0], copy)
    monkeypatch.setattr(sqakd.quantization, "__path__", [str(copy)])
    assert CodeCache(tmp_path).folder == before
    with (copy / "quantizers" / "clip_round.py").open("a") as file:
        file.write("# changed\n")
    code_cache.version.cache_clear()
    assert CodeCache(tmp_path).folder != before
    code_cache.version.cache_clear()

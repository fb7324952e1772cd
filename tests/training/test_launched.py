"""Processes that a launcher such as torchrun starts at once: the first one decides, and the others follow it."""

from __future__ import annotations

import shutil
import threading
import time
from functools import partial
from pathlib import Path

import command
import pytest
import ranks
from torch import distributed

from sqakd.errors import SqakdError
from sqakd.runs.folder import RunFolder
from sqakd.training.ranks import decided_by_first, done_by_first, held, join

OVERRIDES = [*command.SMALL, "dataset=digits16", "dataset.limit=96", "quantizer=lsq", "trainer.compile=false"]
OVERRIDES += ["recipe.epochs=1", "teacher.recipe.epochs=1"]
FLOAT = "digits16-resnet20-none-w32a32-none"
OTHER_JOB = 12.0  # seconds; both processes are at the lock long before


@pytest.fixture(scope="module")
def float_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("float") / "runs"
    done = command.train_launched(*OVERRIDES, "bits=2", runs=runs)
    assert [one.returncode for one in done] == [0, 0], done
    return runs / FLOAT / "seed0"


def test_all_processes_wait_for_a_teacher_that_another_job_trains(float_run: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    folder = RunFolder(runs / FLOAT / "seed0")

    def other_job() -> None:
        with folder.locked():
            time.sleep(OTHER_JOB)
            shutil.copytree(float_run, folder.path, dirs_exist_ok=True, ignore=lambda *_: {".lock"})

    other = threading.Thread(target=other_job)
    other.start()
    done = command.train_launched(*OVERRIDES, "bits=2", runs=runs)
    other.join()
    assert [one.returncode for one in done] == [0, 0], done
    assert f"{folder.path} is being trained by another process; waiting for it" in done[0].stdout
    assert "done before: " in done[0].stdout


def test_the_first_process_chooses_the_bits_of_all_and_draws_them(float_run: Path, tmp_path: Path) -> None:
    """The sensitivities of the second process are made others, so that it would choose other bits."""
    runs = tmp_path / "runs"
    shutil.copytree(float_run, runs / FLOAT / "seed0")
    auto = [*OVERRIDES, "bits=auto", "budget.size=33kB", "budget.images=16", "budget.widths=[2,4]", "name=chosen"]
    done = command.train_launched(*auto, runs=runs, name="tests/support/noisy_ranks.py")
    assert [one.returncode for one in done] == [0, 0], done
    bits = [[line for line in one.stderr.splitlines() if line.startswith("bits ")] for one in done]
    assert bits[0] == bits[1]
    assert len(bits[0]) == 1
    assert [one.stderr.count("drawn") for one in done] == [1, 0]


def test_all_processes_end_in_one_line_if_the_first_one_cannot_write(float_run: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(float_run, runs / FLOAT / "seed0")
    done = command.train_launched(*OVERRIDES, "bits=2", runs=runs, name="tests/support/full_disk.py")
    assert [one.returncode for one in done] == [1, 1]
    for one in done:
        *before, last = one.stderr.splitlines()
        assert last.startswith("error: cannot write config.yaml: No space left on device; ")
        assert not any("Traceback" in line for line in before)


def decide(folder: Path, recorder: ranks.Collectives) -> list[int]:
    """Return the first process's rank as all processes see it, and the same after a wait for a lock."""
    rank = distributed.get_rank()
    seen = [decided_by_first(lambda: rank)]
    with held(RunFolder(folder.parent / "run"), first=rank == 0):
        seen.append(decided_by_first(lambda: rank))
    return seen


def test_a_decision_of_the_first_process_reaches_the_others(tmp_path: Path) -> None:
    assert ranks.on_ranks(2, tmp_path, decide) == [[0, 0], [0, 0]]


def refuse(folder: Path, recorder: ranks.Collectives) -> list[str]:
    """Return the errors of a refused decision, of a folder that cannot be made, and of a file that is not there."""
    rank = distributed.get_rank()
    found = []
    file = folder.parent / "file"
    file.touch()

    def decide() -> None:
        raise SqakdError("another run", topic="run.other", rank=rank)

    with pytest.raises(SqakdError) as error:
        decided_by_first(decide)
    found.append(f"{error.value} {error.value.topic} {error.value.facts}")
    with pytest.raises(SqakdError) as error, held(RunFolder(file / "x"), first=rank == 0):
        pass
    found.append(str(error.value))
    with pytest.raises(FileNotFoundError) as lost:
        done_by_first(folder.read_bytes, first=rank == 0)
    return [*found, str(lost.value)]


def test_what_the_first_process_refuses_all_of_them_refuse(tmp_path: Path) -> None:
    first, second = ranks.on_ranks(2, tmp_path, refuse)
    assert first == second
    assert first[0] == "another run run.other {'rank': 0}"
    assert first[1].startswith("cannot write to ")


def wait(folder: Path, recorder: ranks.Collectives) -> list[int]:
    """Return whether another job had let go of the folder when this process entered, and the messages until then."""
    run, ended, first = RunFolder(folder.parent / "run"), folder.parent / "ended", distributed.get_rank() == 0
    holds = threading.Event()

    def other_job() -> None:
        with run.locked():
            holds.set()
            time.sleep(1)
            ended.touch()

    if first:
        threading.Thread(target=other_job).start()
        holds.wait()
    distributed.barrier()
    recorder.take()
    with held(run, first=first):
        return [ended.exists(), len(recorder.take())]


def test_no_process_enters_before_the_first_one_holds_the_folder(tmp_path: Path) -> None:
    two_decisions = 4  # that the first process still waits, and that the folder is held; each has a size and a content
    assert ranks.on_ranks(2, tmp_path, wait) == [[True, two_decisions]] * 2


def test_a_process_that_is_alone_decides_by_itself() -> None:
    assert decided_by_first(lambda: 7) == 7
    done: list[bool] = []
    for first in (True, False):
        done_by_first(partial(done.append, first), first=first)
    assert done == [True]


def test_without_a_launcher_a_finished_run_needs_no_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    join({"devices": 10**9})
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    with pytest.raises(SqakdError, match=r"devices=1000000000: expected at most \d+, the number of devices"):
        join({"devices": 10**9})

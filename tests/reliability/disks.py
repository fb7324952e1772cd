"""Too little room, and folders that cannot be written: one line, nothing left, and the same command continues."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.reliability.case import Case, Ending, Fault
from tests.reliability.files import EXPORT, REPORT, paper, same_end
from tests.reliability.kills import TRAIN
from tests.reliability.messages import judge_refusal, last_line
from tests.reliability.process import run_stopped
from tests.reliability.samples import Samples, copied
from tests.reliability.snapshot import snapshot

NOT_ROOT = "" if os.geteuid() == 0 and shutil.which("mount") else "only the superuser can mount a small disk"
LIMITS = (500, 1000, 4000, 20_000, 60_000, 150_000, 300_000, 330_000, 400_000, 700_000)
SIZES = (16, 100, 350, 500, 800, 1200, 1500, 1900)  # kB free for a training
SPARE = (16, 100, 200, 600)  # kB free for an export


def cases(samples: Samples) -> Iterator[Case]:
    """Yield the cases of full disks and read-only folders."""
    end = same_end(samples)
    for limit in LIMITS:
        yield Case("kills", "largest file", f"training, {limit} bytes", _limited(TRAIN, limit, lambda _: None, end))
    for limit in LIMITS[:7:2]:
        yield Case(
            "kills", "largest file", f"export, {limit} bytes", _limited(EXPORT, limit, _copies(samples), _nothing)
        )
        report = _limited(REPORT, limit, _copies(samples, published=True), _nothing)
        yield Case("kills", "largest file", f"report, {limit} bytes", report)
    for size in SIZES:
        yield Case("kills", "full disk", f"training, {size} kB", _mounted(TRAIN, size, lambda _: None, end), NOT_ROOT)
    for spare in SPARE:
        play = _mounted(EXPORT, spare, _copies(samples), _nothing)
        yield Case("kills", "full disk", f"export, {spare} kB", play, NOT_ROOT)
    for name, words in {
        "training": TRAIN,
        "export": EXPORT,
        "report": REPORT,
        "second training": (*TRAIN, "seed=1"),
    }.items():
        source = (lambda _: None) if name == "training" else _copies(samples, published=True)
        yield Case("kills", "read-only folder", name, _read_only(words, source), NOT_ROOT)


def _copies(samples: Samples, *, published: bool = False) -> Callable[[Path], object]:
    def copy(folder: Path) -> None:
        copied(samples.runs, folder)
        if published:
            paper(folder)

    return copy


def _nothing(folder: Path, done: subprocess.CompletedProcess[str]) -> list[tuple[Fault, str]]:
    return []


End = Callable[[Path, subprocess.CompletedProcess[str]], list[tuple[Fault, str]]]


def _limited(words: Sequence[str], limit: int, prepare: Callable[[Path], object], end: End) -> Callable[[Path], Ending]:
    """Return a play in which no file may be longer than `limit` bytes at first."""

    def play(folder: Path) -> Ending:
        prepare(folder)
        done, _ = run_stopped(words, folder, largest_file=limit)
        return _judged(words, folder, done, end, f"largest file {limit} bytes")

    return play


def _judged(words: Sequence[str], folder: Path, done: subprocess.CompletedProcess[str], end: End, what: str) -> Ending:
    """Judge a command that had too little room, and the same command with enough room."""
    faults: list[tuple[Fault, str]] = []
    if done.returncode < 0:
        faults.append((Fault.TRACEBACK, f"killed by signal {-done.returncode}"))
    elif done.returncode:
        faults += judge_refusal(done.stderr)
        left = [name for name in snapshot(folder) if name.endswith((".part", ".tmp"))]
        faults += [(Fault.LEFT, f"left: {', '.join(left[:3])}")] if left else []
    again, _ = run_stopped(words, folder)
    if again.returncode:
        faults.append((Fault.LOST, f"the same command does not continue: {last_line(again.stderr)}"))
    else:
        faults += end(folder, again)
    lines = (done.stdout + done.stderr).splitlines()[-4:] + (again.stdout + again.stderr).splitlines()[-2:]
    shown = f"{shlex.join(['python', *words])}  # {what}"
    return Ending(done.returncode != 0, tuple(faults), shown, tuple(line[:300] for line in lines))


def _mounted(words: Sequence[str], spare: int, prepare: Callable[[Path], object], end: End) -> Callable[[Path], Ending]:
    """Return a play on a disk with `spare` kilobytes beside what is prepared; it is enlarged for the second try."""

    def play(folder: Path) -> Ending:
        disk = folder / "disk"
        disk.mkdir()
        _mount("-t", "tmpfs", "-o", "size=100m", "tmpfs", str(disk))
        try:
            prepare(disk)
            size = spare + shutil.disk_usage(disk).used // 1000
            _mount("-o", f"remount,size={size}k", str(disk))
            done, _ = run_stopped(words, disk)
            _mount("-o", "remount,size=100m", str(disk))
            return _judged(words, disk, done, end, f"{spare} kB free")
        finally:
            _unmount(disk)

    return play


def _read_only(words: Sequence[str], prepare: Callable[[Path], object]) -> Callable[[Path], Ending]:
    """Return a play on a disk that cannot be written."""

    def play(folder: Path) -> Ending:
        disk = folder / "disk"
        disk.mkdir()
        _mount("-t", "tmpfs", "-o", "size=100m", "tmpfs", str(disk))
        try:
            prepare(disk)
            _mount("-o", "remount,ro", str(disk))
            done, _ = run_stopped(words, disk)
            faults = (
                judge_refusal(done.stderr) if done.returncode else [(Fault.NONSENSE, "wrote to a read-only folder")]
            )
            lines = (done.stdout + done.stderr).splitlines()[-4:]
            return Ending(done.returncode != 0, tuple(faults), shlex.join(["python", *words]), tuple(lines))
        finally:
            _unmount(disk)

    return play


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _unmount(disk: Path) -> None:
    """Unmount a disk; a process that was killed a moment ago may still hold it."""
    for _ in range(100):
        if subprocess.run(["umount", str(disk)], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{disk} is still in use")

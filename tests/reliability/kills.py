"""Commands stopped at moments spread over their length: the same command then ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import command

from tests.reliability.attempt import MARKER
from tests.reliability.case import Case, Ending, Fault
from tests.reliability.files import EXPORT, REPORT, S, T, paper, same_end
from tests.reliability.messages import PROGRESS, TRACEBACK, judge_success, last_line
from tests.reliability.process import run_stopped
from tests.reliability.samples import STUDENT, TEACHER, TINY, Samples, copied
from tests.reliability.snapshot import snapshot

TRAIN = ("train.py", *TINY)
End = Callable[[Path, subprocess.CompletedProcess[str]], list[tuple[Fault, str]]]


@dataclass(frozen=True)
class Stopped:
    """A command that is stopped and then repeated until it ends.

    Attributes:
        words: the command.
        prepare: fills the folder.
        moments: shares of the command's usual length; the command is started and stopped once for each.
        usual: returns the usual length in seconds.
        by: the signal.
        end: judges the folder after the last, undisturbed command.
        kept: files that are whole after each stop: as before, or as after the undisturbed command.
        extra: overrides of the stopped commands alone.
    """

    words: Sequence[str]
    prepare: Callable[[Path], object]
    moments: tuple[float, ...]
    usual: Callable[[], float]
    by: signal.Signals
    end: End
    kept: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def __call__(self, folder: Path) -> Ending:
        """Stop the command at each moment, repeat it and judge what it leaves."""
        self.prepare(folder)
        states = [snapshot(folder)]
        faults: list[tuple[Fault, str]] = []
        shown = f"{shlex.join(['python', *self.words])}  # {self.by.name} at {self.moments}"
        lines: list[str] = []
        for moment in self.moments:
            done, sent = run_stopped(
                [*self.words, *self.extra], folder, after=moment * self.usual() if not self.extra else None, by=self.by
            )
            lines += (done.stdout + done.stderr).splitlines()[-3:]
            faults += self.judge_stop(done, sent=sent or bool(self.extra))
            states.append(snapshot(folder))
        done, _ = run_stopped(self.words, folder)
        lines += (done.stdout + done.stderr).splitlines()[-3:]
        after = snapshot(folder)
        if done.returncode:
            faults.append((Fault.LOST, f"the same command does not continue: {last_line(done.stderr)}"))
            if TRACEBACK in done.stderr:
                faults.append((Fault.TRACEBACK, last_line(done.stderr)))
        else:
            faults += judge_success(done.stdout, done.stderr) + self.end(folder, done)
        for name in self.kept:
            whole = {states[0].get(name), after.get(name)}
            if any(state.get(name) not in whole for state in states[1:]):
                faults.append((Fault.LOST, f"{name} was neither the old nor the new file after a stop"))
        left = [name for name in after if name.endswith((".part", ".tmp")) or "/.export" in name]
        if left:
            faults.append((Fault.LEFT, f"left: {', '.join(left[:3])}"))
        if MARKER in after:
            faults.append((Fault.CODE, "code was run"))
        return Ending(False, tuple(faults), shown, tuple(line[:300] for line in lines))

    def judge_stop(self, done: subprocess.CompletedProcess[str], *, sent: bool) -> list[tuple[Fault, str]]:
        """Return the faults of a stopped command's messages: one line at most."""
        if not sent or self.by == signal.SIGKILL:
            return []
        if TRACEBACK in done.stderr:
            return [(Fault.TRACEBACK, last_line(done.stderr))]
        lines = [line for line in done.stderr.splitlines() if not PROGRESS.search(line)]
        # The signal may come when the work is done. Outside of a training, SIGTERM ends a process at once.
        if done.returncode == 0 or (done.returncode == -signal.SIGTERM and not lines):
            return []
        return [] if len(lines) == 1 else [(Fault.UNCLEAR, f"{len(lines)} lines after {self.by.name}")]


def spread(count: int) -> list[float]:
    """Return `count` shares between 0 and 1, evenly spread."""
    return [(i + 0.5) / count for i in range(count)]


def cases(samples: Samples) -> Iterator[Case]:
    """Yield all cases of stopped commands."""
    usual = cache(lambda: _seconds(samples))
    rng = random.Random("kills")
    end = _whole_end(samples)

    def training(kind: str, by: signal.Signals, *moments: float, extra: tuple[str, ...] = ()) -> Case:
        stopped = Stopped(TRAIN, lambda _: None, moments, lambda: usual()[0], by, end, extra=extra)
        place = " ".join(extra[1:]) if extra else " and ".join(f"{moment:.3f}" for moment in moments)
        return Case("kills", kind, f"{by.name} at {place}", stopped)

    for moment in spread(40):
        yield training("training", signal.SIGKILL, moment)
    for _ in range(10):
        yield training("training twice", signal.SIGKILL, rng.random(), rng.random())
    for victim in (TEACHER, STUDENT):
        for epoch in (0, 1):
            for step in (0, 3, 7):
                extra = tuple(command.kill_at(victim, epoch, step, "SIGKILL"))
                yield training("step of the training", signal.SIGKILL, 0.0, extra=extra)
    for by in (signal.SIGINT, signal.SIGTERM):
        for moment in spread(10):
            yield training("signal to a training", by, moment)
    yield from _other_commands(samples, usual)


def _other_commands(samples: Samples, usual: Callable[[], tuple[float, float, float]]) -> Iterator[Case]:
    export, names = f"{S}/export-exact", ("model.onnx", "record.json")

    def exporting(source: Callable[[], Path], kind: str, by: signal.Signals, moment: float) -> Case:
        def end(folder: Path, done: subprocess.CompletedProcess[str]) -> list[tuple[Fault, str]]:
            same = (folder / export / "model.onnx").read_bytes() == (
                samples.exported / export / "model.onnx"
            ).read_bytes()
            return [] if same else [(Fault.NONSENSE, "another model.onnx")]

        kept = tuple(f"{export}/{name}" for name in names) if kind == "second export" else ()
        stopped = Stopped(
            EXPORT, lambda folder: copied(source(), folder), (moment,), lambda: usual()[1], by, end, kept[:1]
        )
        return Case("kills", kind, f"{by.name} at {moment:.3f}", stopped)

    for moment in spread(6):
        yield exporting(lambda: samples.runs, "first export", signal.SIGKILL, moment)
        yield exporting(lambda: samples.exported, "second export", signal.SIGKILL, moment)
    for by in (signal.SIGINT, signal.SIGTERM):
        for moment in spread(4):
            yield exporting(lambda: samples.exported, "signal to an export", by, moment)

    def prepare(folder: Path) -> None:
        copied(samples.exported, folder)
        paper(folder)

    for by in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        for moment in spread(5):
            stopped = Stopped(REPORT, prepare, (moment,), lambda: usual()[2], by, lambda *_: [])
            yield Case("kills", "report", f"{by.name} at {moment:.3f}", stopped)


def _seconds(samples: Samples) -> tuple[float, float, float]:
    """Measure how long an undisturbed training, export and report take, in a new folder each."""
    found = []
    for name, words, source in (
        ("train", TRAIN, None),
        ("export", EXPORT, samples.runs),
        ("report", REPORT, samples.runs),
    ):
        folder = samples.new(f"undisturbed {name}")
        if source is not None:
            copied(source, folder)
            paper(folder)
        start = time.monotonic()
        run_stopped(words, folder)
        found.append(time.monotonic() - start)
    return found[0], found[1], found[2]


def _whole_end(samples: Samples) -> End:
    """Return a check of weights, metrics and records."""
    weights = same_end(samples)

    def check(folder: Path, done: subprocess.CompletedProcess[str]) -> list[tuple[Fault, str]]:
        return weights(folder, done) + same_records(samples.runs, folder)

    return check


def same_records(there: Path, here: Path) -> list[tuple[Fault, str]]:
    """Return the faults in two folders' records; times, speed and the command's folder may differ.

    The checksum of weights.pt may differ too, because the file contains the record. Its tensors are compared elsewhere.
    """
    timed = ("images_per_second", "training_seconds", "finished", "command", "commit", "weights_sha256")
    for run in (S, T):
        records = [json.loads((place / run / "record.json").read_text()) for place in (there, here)]
        different = [key for key in records[0] if key not in timed and records[0][key] != records[1].get(key)]
        if different:
            return [(Fault.NONSENSE, f"record.json differs in {', '.join(different)}")]
    return []

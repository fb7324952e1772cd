"""Damaged files of every kind that the project reads, each read by the command that needs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import command

from tests.reliability import damages
from tests.reliability.attempt import Attempt, Check
from tests.reliability.case import Case, Expected, Fault
from tests.reliability.damages import Damage
from tests.reliability.options import BASE
from tests.reliability.samples import STUDENT, TEACHER, TINY, Samples, copied

S, T = f"runs/{STUDENT}/seed0", f"runs/{TEACHER}/seed0"
TRAIN = ("train.py", *TINY)
EXPORT = ("export.py", f"run={S}", "benchmark.rounds=0")
REPORT = ("-m", "sqakd.report", "--html", "report.html")
DASHBOARD = ("-m", "sqakd.dashboard", "--offline")
# A configuration that is whole, but another one, belongs to another run.
NAMED = ("config.yaml", "holds another run")


@dataclass(frozen=True)
class Reader:
    """A command that reads one file.

    Attributes:
        name: for the case.
        sample: returns the folder that is copied.
        file: the file that is damaged, below the folder.
        command: reads the file.
        expected: of all damages; a flipped bit may always be harmless.
        rewritten: beginnings of paths that the command may change if it accepts the file.
        checks: of an accepted command.
        names: texts of which a refusal must contain one; the file's name if empty.
        extra: fills more into the folder.
    """

    name: str
    sample: Callable[[], Path]
    file: str
    command: Sequence[str]
    expected: Expected = Expected.EITHER
    rewritten: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    names: tuple[str, ...] = ()
    extra: Callable[[Path], object] = lambda _: None

    def case(self, kind: str, name: str, damage: Damage, *, expected: Expected | None = None, skip: str = "") -> Case:
        """Return the case of one damage."""

        def prepare(folder: Path) -> None:
            copied(self.sample(), folder)
            self.extra(folder)
            damage(folder / self.file)

        attempt = Attempt(
            self.command,
            expected or self.expected,
            prepare=prepare,
            names=self.names or (Path(self.file).name,),
            rewritten=self.rewritten,
            checks=self.checks,
        )
        return Case("files", self.name, f"{kind} {name}", attempt, skip)

    def cases(self, kind: str, found: Iterable[tuple[str, Damage]]) -> Iterator[Case]:
        """Yield the cases of several damages."""
        for name, damage in found:
            yield self.case(kind, name, damage)


def cases(samples: Samples) -> Iterator[Case]:
    """Yield all cases of damaged files."""
    yield from _checkpoints(samples)
    yield from _records(samples)
    yield from _tables(samples)


def same_end(samples: Samples) -> Check:
    """Return a check that a resumed or repeated training ends in the weights of an uninterrupted one."""

    def check(folder: Path, done: subprocess.CompletedProcess[str]) -> list[tuple[Fault, str]]:
        for name in (TEACHER, STUDENT):
            here, there = folder / "runs" / name / "seed0", samples.runs / "runs" / name / "seed0"
            if not command.same_bits(command.weights(here), command.weights(there)):
                return [(Fault.NONSENSE, f"other weights in {name}")]
            if command.metrics(here) != command.metrics(there):
                return [(Fault.NONSENSE, f"other numbers in metrics.csv of {name}")]
        return []

    return check


def says(*words: str) -> Check:
    """Return a check that an accepted command's output contains one of these words."""

    def check(folder: Path, done: subprocess.CompletedProcess[str]) -> list[tuple[Fault, str]]:
        found = any(word in done.stdout + done.stderr for word in words)
        return [] if found else [(Fault.NONSENSE, f"no word about {words[0]}")]

    return check


def _checkpoints(samples: Samples) -> Iterator[Case]:
    end = same_end(samples)
    last = f"{S}/checkpoints/last.ckpt"
    resume = Reader("last.ckpt", lambda: samples.interrupted, last, TRAIN, rewritten=(S,), checks=(end,))
    yield from resume.cases("damage", damages.generic("last.ckpt", flips=8))
    yield from resume.cases("content", damages.torch_shapes())
    weights = Reader("weights.pt of the teacher", lambda: samples.interrupted, f"{T}/weights.pt", TRAIN)
    weights = Reader(weights.name, weights.sample, weights.file, TRAIN, rewritten=(S,), checks=(end,))
    yield from weights.cases("damage", damages.generic("weights.pt", flips=6))
    yield from weights.cases("content", damages.torch_shapes())
    yield weights.case("content", "nan", damages.nan_weights)
    export = Reader("weights.pt for export", lambda: samples.runs, f"{S}/weights.pt", EXPORT, Expected.REFUSED)
    yield from export.cases("damage", damages.generic("weights for export", flips=4))
    yield from export.cases("content", list(damages.torch_shapes())[:4])
    for suffix in ("pt", "safetensors"):
        yield from _foreign(samples, suffix)


def _foreign(samples: Samples, suffix: str) -> Iterator[Case]:
    def sample() -> Path:
        return samples.teachers

    file = f"teacher.{suffix}"
    words = ("train.py", *BASE, f"teacher.checkpoint={file}")
    reader = Reader(f"foreign teacher.{suffix}", sample, file, words, Expected.REFUSED)
    for name, damage in damages.generic(file, flips=3):
        # Somebody else's file has no checksum of ours, so that a flipped bit in a weight cannot be seen.
        harmless = name.startswith(("bit", "first half"))
        yield reader.case("damage", name, damage, expected=Expected.EITHER if harmless else None)
    if suffix == "pt":
        for name, damage in damages.torch_shapes():
            either = name == "another directory"  # a valid file with other numbers
            yield reader.case("content", name, damage, expected=Expected.EITHER if either else None)
        yield reader.case("content", "nan", damages.nan_weights)


def _records(samples: Samples) -> Iterator[Case]:
    record, config = f"{S}/record.json", f"{S}/config.yaml"
    found = {
        "damage": list(damages.generic("record.json")),
        "shape": list(damages.json_shapes()),
        "key": list(damages.json_keys("record.json", 12)),
    }
    # A run without a readable record may be finished again from its last checkpoint.
    again = Reader("record.json, the same command", lambda: samples.runs, record, TRAIN)
    again = replace(again, rewritten=(S,), checks=(same_end(samples),))
    report = Reader("record.json, the report", lambda: samples.runs, record, REPORT, Expected.ACCEPTED, extra=paper)
    for kind, several in found.items():
        yield from again.cases(kind, several)
        for name, damage in several:
            checks = (says("record.json", STUDENT),) if kind != "key" and not name.startswith("bit") else ()
            one = Reader(
                report.name, report.sample, record, REPORT, report.expected, ("results/",), checks, extra=paper
            )
            yield one.case(kind, name, damage)
    others = {"another training": (*TRAIN, "seed=1"), "dashboard": DASHBOARD, "plan": (*TRAIN, "seed=1", "plan=true")}
    for name, words in others.items():
        reader = Reader(f"record.json, {name}", lambda: samples.runs, record, words, Expected.ACCEPTED, extra=paper)
        yield from reader.cases("damage", found["damage"][:4] + found["damage"][-3:])
        yield from reader.cases("shape", found["shape"][:4])
    found = {"damage": list(damages.generic("config.yaml")), "shape": list(damages.yaml_shapes())}
    for name, words in {"the same command": TRAIN, "export": EXPORT}.items():
        reader = Reader(f"config.yaml, {name}", lambda: samples.runs, config, words, names=NAMED)
        for kind, several in found.items():
            yield from reader.cases(kind, several)
    hostile = Reader("config.yaml, export", lambda: samples.runs, config, EXPORT)
    yield from hostile.cases("class", damages.hostile_targets())
    teacher = Reader(
        "config.yaml of the teacher",
        lambda: samples.interrupted,
        f"{T}/config.yaml",
        TRAIN,
        rewritten=(S,),
        names=NAMED,
    )
    yield from teacher.cases("class", list(damages.hostile_targets())[:4])
    yield from teacher.cases("shape", list(damages.yaml_shapes())[:4])
    unreadable = "the superuser reads every file" if os.geteuid() == 0 else ""
    yield again.case("damage", "no permission", lambda file: file.chmod(0), skip=unreadable)


def paper(folder: Path) -> None:
    (folder / "results").mkdir(exist_ok=True)
    shutil.copy(command.ROOT / "results" / "paper.csv", folder / "results")


def _tables(samples: Samples) -> Iterator[Case]:
    for file in ("metrics.csv", "quantizers.csv"):
        resume = Reader(f"{file}, resume", lambda: samples.interrupted, f"{S}/{file}", TRAIN, rewritten=(S,))
        resume = Reader(resume.name, resume.sample, resume.file, TRAIN, rewritten=(S,), checks=(same_end(samples),))
        yield from resume.cases("damage", list(damages.generic(file))[:10])
        for name, words in {"report": REPORT, "dashboard": DASHBOARD}.items():
            reader = Reader(
                f"{file}, {name}", lambda: samples.runs, f"{S}/{file}", words, rewritten=("results/",), extra=paper
            )
            yield from reader.cases("damage", damages.generic(f"{file} {name}"))
    published = Reader(
        "paper.csv", lambda: samples.runs, "results/paper.csv", REPORT, rewritten=("results/",), extra=paper
    )
    yield from published.cases("damage", damages.generic("paper.csv"))

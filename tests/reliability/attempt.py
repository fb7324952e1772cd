"""One command in a folder of its own, judged by its messages, its files and whether foreign code ran."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.case import Ending, Expected, Fault
from tests.reliability.messages import judge_refusal, judge_success
from tests.reliability.process import run
from tests.reliability.snapshot import judge_accepted, judge_refused, snapshot

TIMEOUT = 120  # seconds; the slowest good ending takes a fifth of it
MARKER = "code-was-run"  # hostile files make this file in the current folder when their code is run

Check = Callable[[Path, subprocess.CompletedProcess[str]], list[tuple[Fault, str]]]


@dataclass(frozen=True)
class Attempt:
    """A command and the right ending.

    Attributes:
        command: script or "-m", and its arguments; FOLDER in an argument is replaced by the case's folder.
        expected: whether the command must be refused.
        prepare: fills the case's empty folder.
        names: a refusal must contain at least one of these texts.
        rewritten: beginnings of paths that an accepted command may change.
        checks: further judgements of an accepted command.
        timeout: seconds.
    """

    command: Sequence[str]
    expected: Expected = Expected.EITHER
    prepare: Callable[[Path], object] = lambda _: None
    names: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    timeout: float = TIMEOUT

    def __call__(self, folder: Path) -> Ending:
        """Prepare the folder, run the command there and judge it."""
        self.prepare(folder)
        words = [word.replace("FOLDER", str(folder)) for word in self.command]
        shown = shlex.join(["python", *words])
        before = snapshot(folder)
        try:
            done = run(words, folder, timeout=self.timeout)
        except subprocess.TimeoutExpired:
            return Ending(False, ((Fault.ENDLESS, f"no ending in {self.timeout:.0f} s"),), shown)
        faults = self.judge(folder, before, done)
        lines = (done.stdout + done.stderr).splitlines()[-6:]
        return Ending(done.returncode != 0, tuple(faults), shown, tuple(line[:300] for line in lines))

    def judge(
        self, folder: Path, before: dict[str, str], done: subprocess.CompletedProcess[str]
    ) -> list[tuple[Fault, str]]:
        """Return all faults of the ending."""
        after = snapshot(folder)
        faults = [(Fault.CODE, "the file's code was run")] if MARKER in after else []
        if done.returncode < 0:
            return [*faults, (Fault.TRACEBACK, f"the process was killed by signal {-done.returncode}")]
        if done.returncode:
            faults += judge_refusal(done.stderr, names=self.names) + judge_refused(before, after)
            if self.expected == Expected.ACCEPTED:
                faults.append((Fault.NONSENSE, "refused although it is right"))
            return faults
        if self.expected == Expected.REFUSED:
            faults.append((Fault.NONSENSE, "accepted although it must be refused"))
        faults += judge_success(done.stdout, done.stderr) + judge_accepted(before, after, rewritten=self.rewritten)
        for check in self.checks:
            faults += check(folder, done)
        return faults

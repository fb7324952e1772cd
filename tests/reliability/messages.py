"""Judgement of what a command printed: one clear line, or a traceback, or words that only programmers understand."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tests.reliability.case import Fault

# Lines that a training may print on standard error before an error: the progress of its epochs.
PROGRESS = re.compile(r": epoch \d+/\d+ |^\[[#.]+\] |^\s*$")
# Lines of predict about images that it leaves out; the others are classified.
SKIPPED = re.compile(r": cannot be read \(.+\); skipped$|^\d+ of \d+ images could not be read$")
# A line about files in a folder that are no images.
LEFT_OUT = re.compile(r": \d+ left out: ")
# Python's own words about values that nobody checked, and Hydra's advice for its developers.
JARGON = re.compile(
    r"HYDRA_FULL_ERROR|object has no attribute|unexpected keyword|unsupported operand|not supported between instances"
    r"|must be real number, not|has no len\(\)|not subscriptable|not iterable|not callable|invalid literal for"
    r"|could not convert string|could not be converted|missing \d+ required|positional argument|NoneType|<class '"
    r"|<function |<bound |object at 0x|invalid load key|weights_only|\bErrno\b|stacklevel|Warning:"
    r"|\b(?:Attribute|Type|Value|Key|Index|Runtime|OS|Unicode\w*|Recursion|EOF|Zero\w+|Overflow|Assertion|Import)Error\b"
)
# Characters of a foreign name that could change what a terminal shows; a progress bar uses the carriage return.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
TRACEBACK = "Traceback (most recent call last)"


def judge_refusal(stderr: str, *, names: Sequence[str] = ()) -> list[tuple[Fault, str]]:
    """Return the faults of a refused command's messages.

    Args:
        stderr: what the command printed on standard error.
        names: texts of which the message must contain at least one, e.g. the name of a damaged file.
    """
    if TRACEBACK in stderr:
        return [(Fault.TRACEBACK, last_line(stderr))]
    if control := CONTROL.search(stderr):
        return [(Fault.UNCLEAR, f"a control character: {control.group()!r}")]
    lines = [line for line in stderr.splitlines() if not PROGRESS.search(line) and not LEFT_OUT.search(line)]
    if lines and lines[0].startswith("usage: "):  # argparse: the usage, which may take several lines, and the error
        lines = lines[-1:]
    faults = [(Fault.UNCLEAR, f"jargon: {found.group()}") for line in lines if (found := JARGON.search(line))][:1]
    if lines and all(SKIPPED.search(line) for line in lines):
        pass
    elif len(lines) != 1:
        faults.append((Fault.UNCLEAR, f"{len(lines)} lines instead of one"))
    elif not re.match(r"(\S.*: )?error: ", lines[0]):
        faults.append((Fault.UNCLEAR, "the line is no error"))
    if names and not any(name in stderr for name in names):
        faults.append((Fault.UNCLEAR, f"the message does not name {' or '.join(names)}"))
    return faults


def judge_success(stdout: str, stderr: str) -> list[tuple[Fault, str]]:
    """Return the faults of an accepted command's output."""
    if TRACEBACK in stdout + stderr:
        return [(Fault.TRACEBACK, last_line(stderr))]
    lines = [*stdout.splitlines(), *stderr.splitlines()]
    if control := CONTROL.search(stdout + stderr):
        return [(Fault.UNCLEAR, f"a control character: {control.group()!r}")]
    if numbers := [line for line in lines if re.search(r"(?<![\w/=.-])(nan|inf)\b ?%?", line)]:
        return [(Fault.NONSENSE, f"a number that is none: {numbers[0]}")]
    return [(Fault.UNCLEAR, f"jargon: {found.group()}") for line in lines if (found := JARGON.search(line))][:1]


def last_line(text: str) -> str:
    """Return the last line of a text that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")

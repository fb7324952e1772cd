"""A case of the campaign: what is tried, and how its ending is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Fault(StrEnum):
    """Kinds of bad endings; each is a column of the campaign's table and must be 0."""

    TRACEBACK = "traceback"  # Python's traceback instead of one line
    UNCLEAR = "unclear"  # several lines, Python's or Hydra's own words, or a file that is not named
    NONSENSE = "nonsense"  # accepted although it must be refused, or another result without a word
    LOST = "lost"  # finished work changed, or a run that cannot be continued
    LEFT = "left"  # files or folders that a refused command leaves behind
    CODE = "code"  # code of a foreign file was run
    ENDLESS = "endless"  # no ending within the time limit
    BROKEN = "broken"  # the campaign's own case has a mistake


class Expected(StrEnum):
    """Endings that a command may have."""

    REFUSED = "refused"
    ACCEPTED = "accepted"
    EITHER = "either"  # a clear refusal and a sensible result are both right


@dataclass(frozen=True)
class Ending:
    """How one case ended.

    Attributes:
        refused: whether the command ended with an exit status other than 0.
        faults: kinds of fault and what was seen; empty for a good ending.
        command: the command, as text that a shell takes.
        lines: the last lines of the output, for people.
    """

    refused: bool
    faults: tuple[tuple[Fault, str], ...]
    command: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One thing to try.

    Attributes:
        family: "options", "files", "kills" or "data".
        kind: what is wrong, for grouping, e.g. "nan".
        name: unique within the family; `--only` matches "family/kind/name".
        play: does everything in an empty folder and returns the ending.
        skip: why this machine cannot try the case; empty if it can.
    """

    family: str
    kind: str
    name: str
    play: Callable[[Path], Ending] = field(repr=False)
    skip: str = ""

    @property
    def title(self) -> str:
        return f"{self.family}/{self.kind}/{self.name}"


def unique(cases: Iterable[Case]) -> list[Case]:
    """Return the cases as a list.

    Raises:
        ValueError: if two of them have one title.
    """
    found: dict[str, Case] = {}
    for case in cases:
        if case.title in found:
            raise ValueError(f"two cases are named {case.title}")
        found[case.title] = case
    return list(found.values())

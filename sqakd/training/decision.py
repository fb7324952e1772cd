"""The decision of a training about compilation, and the file that keeps the decision before the first checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sqakd.files import write_errors, write_text


@dataclass(frozen=True)
class Decision:
    """The choice between eager and compiled code.

    Attributes:
        compile: whether the training step is compiled.
        step: from which step on. A step is one batch.
        evaluation: whether later evaluations are compiled too.
    """

    compile: bool
    step: int
    evaluation: bool = False


def write_decision(file: Path, decision: Decision) -> None:
    """Write a decision, possibly before the first checkpoint.

    Raises:
        WriteError: if the file cannot be written.
    """
    with write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(asdict(decision)))


def read_decision(file: Path) -> Decision | None:
    """Return the decision of an interrupted training; None without one, or if the file is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Decision(bool(found["compile"]), int(found["step"]), bool(found.get("evaluation", False)))
    except (OSError, ValueError, TypeError, KeyError):
        return None

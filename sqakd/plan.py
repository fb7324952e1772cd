"""What a sweep would do: which runs are finished, which would be trained or resumed, and how long that may take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from sqakd.runs import Run, RunError


class Plan:
    """Collects runs, each once, and knows what is left of them.

    Times are those of finished runs of the same network on the same data under the same folder, per epoch.
    """

    def __init__(self) -> None:
        self.seen: set[Path] = set()
        self.states = {"done": 0, "resume": 0, "train": 0, "refused": 0}
        self.seconds = 0.0
        self.unknown = 0

    def add(self, run: Run) -> str | None:
        """One line about a run, or None if it has been added before."""
        if run.folder in self.seen:
            return None
        self.seen.add(run.folder)
        state, note = _state(run)
        self.states[state] += 1
        if state in ("resume", "train"):
            per_epoch = _seconds_per_epoch(run)
            if per_epoch is None:
                self.unknown += 1
            else:
                seconds = per_epoch * (run.config["recipe"]["epochs"] - _epochs_done(run))
                self.seconds += seconds
                note = f"about {duration(seconds)}"
        return f"{state:8} {run.folder}{'  ' + note if note else ''}"

    def total(self) -> str:
        """All runs in one line."""
        counts = ", ".join(f"{count} {state}" for state, count in self.states.items() if count)
        left = f"; about {duration(self.seconds)} on one device" if self.seconds else ""
        unknown = f"; {self.unknown} of unknown length, no run of their network is finished yet" if self.unknown else ""
        return f"{sum(self.states.values())} runs: {counts}{left}{unknown}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them.

    Example:
        >>> duration(50), duration(3000), duration(50000), duration(500000)
        ('50 s', '50 min', '13.9 h', '5.8 days')
    """
    for unit, length, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / length:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def _state(run: Run) -> tuple[str, str]:
    try:
        run.check()
    except RunError as error:
        return "refused", str(error)
    if run.record() is not None:
        return "done", ""
    return ("resume", "") if run.checkpoint.exists() else ("train", "")


def _seconds_per_epoch(run: Run) -> float | None:
    """Of a finished run with the same data set and network, quantized or not like this one."""
    for file in sorted(run.folder.parent.parent.glob("*/seed*/record.json")):
        config = yaml.safe_load(file.with_name("config.yaml").read_text())
        if _kind(config) == _kind(run.config):
            record: dict[str, Any] = json.loads(file.read_text())
            return float(record["training_seconds"] / record["epochs"])
    return None


def _kind(config: dict[str, Any]) -> tuple[str, dict[str, Any], bool]:
    return config["dataset"]["_target_"], config["model"]["net"], config["quantizer"] is not None


def _epochs_done(run: Run) -> int:
    metrics = run.folder / "metrics.csv"
    return len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0

"""What a sweep would do: which runs are finished, which would be trained or resumed, and how long that may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sqakd.runs.folder import Run, RunError
from sqakd.runs.record import find_records, read_record


class Plan:
    """Collects runs, each once, and knows what is left of them.

    Times are those of finished runs under the same folder that did the same work for each image, per epoch; or what
    was learned by measuring.
    """

    def __init__(self) -> None:
        self.seen: set[Path] = set()
        self.refused: set[Path] = set()
        self.rates: dict[Path, list[tuple[Any, float]]] = {}
        self.states = {"done": 0, "resume": 0, "train": 0, "refused": 0}
        self.seconds = 0.0
        self.unknown = 0

    def add(self, run: Run, problem: str = "") -> str | None:
        """One line about a run, or None if it has been added before.

        Args:
            run: what to add.
            problem: why it cannot be trained, if that is known.
        """
        if run.folder in self.seen:
            return None
        self.seen.add(run.folder)
        state, note = _state(run, problem)
        self.states[state] += 1
        if state == "refused":
            self.refused.add(run.folder)
        if state in ("resume", "train"):
            per_epoch = self.seconds_per_epoch(run)
            if per_epoch is None:
                self.unknown += 1
            else:
                seconds = per_epoch * (run.config["recipe"]["epochs"] - _epochs_done(run))
                self.seconds += seconds
                note = f"about {duration(seconds)}"
        return f"{state:8} {run.folder}{'  ' + note if note else ''}"

    def learn(self, run: Run, seconds_per_epoch: float) -> None:
        """Keep the time of one kind of run for others of it under the same folder."""
        self._rates(run).append((_work(run.config), seconds_per_epoch))

    def seconds_per_epoch(self, run: Run) -> float | None:
        """Of a run of the same kind, if one is known."""
        return next((seconds for work, seconds in self._rates(run) if work == _work(run.config)), None)

    def _rates(self, run: Run) -> list[tuple[Any, float]]:
        folder = run.folder.parent.parent
        if folder not in self.rates:
            self.rates[folder] = []
            for file in find_records(folder):
                record = read_record(file)
                config = yaml.safe_load(file.with_name("config.yaml").read_text())
                if record.training_seconds is not None:
                    self.rates[folder].append((_work(config), record.training_seconds / record.epochs))
        return self.rates[folder]

    def total(self) -> str:
        """All runs in one line."""
        counts = ", ".join(f"{count} {state}" for state, count in self.states.items() if count)
        left = f"; about {duration(self.seconds)} on one device" if self.seconds else ""
        unknown = (
            f"; {self.unknown} of unknown length (plan=measure trains a few steps of each)" if self.unknown else ""
        )
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


def _state(run: Run, problem: str) -> tuple[str, str]:
    if problem and run.record() is None:
        return "refused", problem
    try:
        run.check()
    except RunError as error:
        return "refused", str(error)
    if run.record() is not None:
        return "done", ""
    return ("resume", "") if run.checkpoint.exists() else ("train", "")


def _work(config: dict[str, Any]) -> tuple[Any, ...]:
    """What the time of an epoch depends on."""
    data, trainer = config["dataset"], config["trainer"]
    return (
        data["_target_"],
        *(data.get(key) for key in ("image_size", "limit", "holdout")),
        config["model"]["net"],
        config["teacher"]["net"] if config["kd"]["kl"] or config["kd"]["feature_loss"] else None,
        config["kd"]["feature_loss"],
        config["quantizer"] is not None,
        config.get("plus"),
        *(config["recipe"].get(key) for key in ("batch_size", "accumulate")),
        *(trainer.get(key) for key in ("precision", "compile", "channels_last", "devices", "num_nodes")),
    )


def _epochs_done(run: Run) -> int:
    metrics = run.folder / "metrics.csv"
    return len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0

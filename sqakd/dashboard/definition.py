"""conf/dashboard.yaml as objects: checked, so that a panel of names that no run logs is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sqakd.runs.names import CHOICES, known

FILE = Path(__file__).parents[2] / "conf" / "dashboard.yaml"
KINDS = ("lines", "bars", "points")
CONFIG = "config."
# Keys of a run's configuration that runs are told apart by.
KEYS = ("name", "seed", "bits", "w_bits", "a_bits", *(f"choices.{key}" for key in CHOICES))


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        title: its heading.
        kind: lines (over epochs), bars (last values) or points (one number over another).
        metrics: names of `sqakd.runs.names`; LAYER stands for every layer.
        picture: what is nearest to it on the page (docs/dashboard.md).
        group: key of the configuration whose runs are put together, or None.
        x: of points: a metric, or config.KEY.
        log: whether the axis of the numbers (of points, the horizontal one) is logarithmic.
    """

    title: str
    kind: str
    metrics: tuple[str, ...]
    picture: str
    group: str | None = None
    x: str | None = None
    log: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"panel {self.title!r}: kind={self.kind}: expected one of {', '.join(KINDS)}")
        if not self.metrics:
            raise ValueError(f"panel {self.title!r}: expected at least one name under metrics")
        if (self.kind == "points") != (self.x is not None):
            raise ValueError(f"panel {self.title!r}: x belongs to points, and to points alone")
        x = [] if self.x is None or self.x.startswith(CONFIG) else [self.x]
        for metric in (*self.metrics, *x):
            check_metric(metric, self.title)
        for key in (self.group, self.x.removeprefix(CONFIG) if self.x and not x else None):
            if key is not None:
                check_key(key, self.title)


@dataclass(frozen=True)
class Section:
    """Panels about one thing.

    Attributes:
        name: one word, an anchor.
        title: its heading.
        panels: in their order.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Definition:
    """The whole dashboard.

    Attributes:
        name: of the workspace.
        group: key of the configuration by which the list of runs is grouped.
        columns: metrics beside each run in that list.
        sections: in their order.
    """

    name: str
    group: str
    columns: tuple[str, ...]
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        check_key(self.group, "the list of runs")
        for metric in self.columns:
            check_metric(metric, "the list of runs")

    @property
    def panels(self) -> list[Panel]:
        return [panel for section in self.sections for panel in section.panels]


def check_metric(metric: str, where: str) -> None:
    """Refuse a name that no run logs."""
    if known(metric) is None:
        raise ValueError(f"{where}: no run logs {metric!r}; the names are in docs/dashboard.md")


def check_key(key: str, where: str) -> None:
    """Refuse a key that no run's configuration has."""
    if key not in KEYS:
        raise ValueError(f"{where}: {key!r} is no key to tell runs apart; choose one of {', '.join(KEYS)}")


def read(file: Path = FILE) -> Definition:
    """The committed definition.

    Raises:
        ValueError: if the file is missing, has a word that is not known here, or names what no run logs.
    """
    try:
        node: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        sections = tuple(
            Section(**{**section, "panels": tuple(_panel(panel) for panel in section["panels"])})
            for section in node["sections"]
        )
        return Definition(**{**node, "columns": tuple(node["columns"]), "sections": sections})
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{file} defines no dashboard ({type(error).__name__}: {error})") from error


def _panel(node: dict[str, Any]) -> Panel:
    return Panel(**{**node, "metrics": tuple(node["metrics"])})

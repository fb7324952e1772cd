"""The content of conf/dashboard.yaml as checked objects: a panel of metrics that no run logs is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sqakd.errors import SqakdError
from sqakd.runs.names import GROUP_KEYS, listed_name

FILE = Path(__file__).parents[2] / "conf" / "dashboard.yaml"
KINDS = ("lines", "bars", "points")
CONFIG = "config."
# Keys of a run's configuration by which runs can be grouped.
KEYS = ("name", "seed", "bits", "w_bits", "a_bits", *(f"choices.{key}" for key in GROUP_KEYS))


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        title: heading.
        kind: lines (over epochs), bars (last values) or points (one number over another).
        metrics: names of `sqakd.runs.names`; LAYER stands for every layer.
        picture: the picture of the page that is closest to the plot (docs/dashboard.md).
        group: key of the configuration; runs with the same value are averaged. None for no grouping.
        x: for points only: a metric, or config.KEY.
        log: whether the axis of the numbers is logarithmic; for points, the horizontal axis.
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
            raise SqakdError(f"panel {self.title!r}: kind={self.kind}: expected one of {', '.join(KINDS)}")
        if not self.metrics:
            raise SqakdError(f"panel {self.title!r}: no metrics: expected at least one name")
        if (self.kind == "points") != (self.x is not None):
            raise SqakdError(
                f"panel {self.title!r}: kind={self.kind}, x={self.x}: points need x, other kinds have none"
            )
        x = [] if self.x is None or self.x.startswith(CONFIG) else [self.x]
        for metric in (*self.metrics, *x):
            check_metric(metric, self.title)
        for key in (self.group, self.x.removeprefix(CONFIG) if self.x and not x else None):
            if key is not None:
                check_key(key, self.title)


@dataclass(frozen=True)
class PanelGroup:
    """Panels below one heading.

    Attributes:
        name: one word, the anchor on the page.
        title: heading.
        panels: the panels in order.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Definition:
    """The whole dashboard.

    Attributes:
        name: name of the workspace.
        group: key of the configuration by which the list of runs is grouped.
        columns: metrics shown next to each run in that list.
        sections: groups of panels in order.
    """

    name: str
    group: str
    columns: tuple[str, ...]
    sections: tuple[PanelGroup, ...]

    def __post_init__(self) -> None:
        check_key(self.group, "the list of runs")
        for metric in self.columns:
            check_metric(metric, "the list of runs")

    @property
    def panels(self) -> list[Panel]:
        """All panels."""
        return [panel for section in self.sections for panel in section.panels]


def check_metric(metric: str, where: str) -> None:
    """Refuse the name of a metric that no run logs."""
    if listed_name(metric) is None:
        raise SqakdError(f"{where}: no run logs {metric!r}: expected a name of docs/dashboard.md")


def check_key(key: str, where: str) -> None:
    """Refuse a key by which runs cannot be grouped."""
    if key not in KEYS:
        raise SqakdError(f"{where}: runs cannot be grouped by {key!r}: expected one of {', '.join(KEYS)}")


def read(file: Path = FILE) -> Definition:
    """Read the definition of the dashboard.

    Raises:
        SqakdError: if the file is missing, or has an unknown key or an unknown name.
    """
    try:
        node: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        sections = tuple(
            PanelGroup(**{**section, "panels": tuple(_panel(panel) for panel in section["panels"])})
            for section in node["sections"]
        )
        return Definition(**{**node, "columns": tuple(node["columns"]), "sections": sections})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise SqakdError(f"{file} does not define a dashboard ({type(error).__name__}: {error})") from error


def _panel(node: dict[str, Any]) -> Panel:
    return Panel(**{**node, "metrics": tuple(node["metrics"])})

"""The content of conf/dashboard.yaml as checked objects: a panel of metrics that no run logs is refused."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from sqakd.errors import SqakdError
from sqakd.runs.names import GROUP_KEYS, listed_name
from sqakd.shipped import conf_folder

FILE = conf_folder() / "dashboard.yaml"
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
        node = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise SqakdError(f"{file} does not define a dashboard ({reason})") from error
    try:
        return _definition(node)
    except SqakdError as error:
        raise SqakdError(f"{file} does not define a dashboard ({error})") from error


def _definition(node: object) -> Definition:
    known = _arguments(Definition, node, "the dashboard")
    sections = []
    for section in _list(known["sections"], "sections"):
        group = _arguments(PanelGroup, section, "a section")
        panels = [_panel(panel) for panel in _list(group["panels"], "panels")]
        sections.append(PanelGroup(**group | {"panels": tuple(panels)}))
    return Definition(**known | {"columns": _texts(known["columns"], "columns"), "sections": tuple(sections)})


def _panel(node: object) -> Panel:
    known = _arguments(Panel, node, "a panel")
    return Panel(**known | {"metrics": _texts(known["metrics"], "metrics")})


def _arguments(kind: type[Definition | PanelGroup | Panel], node: object, where: str) -> dict[str, Any]:
    """Return a node whose keys are checked: all that have no default, and no others."""
    if not isinstance(node, dict):
        raise SqakdError(f"{where} is {node!r}: expected keys and values")
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    if missing := sorted(needed - node.keys()):
        raise SqakdError(f"{where} has no {', '.join(missing)}")
    if unknown := sorted(map(str, node.keys() - {field.name for field in fields(kind)})):
        raise SqakdError(f"{where} has an unknown key {', '.join(unknown)}")
    texts = {key for key in node if node[key] is not None} - {"sections", "panels", "columns", "metrics", "log"}
    if wrong := sorted(key for key in texts if not isinstance(node[key], str)):
        raise SqakdError(f"{where} has {wrong[0]}={node[wrong[0]]!r}: expected a text")
    return node


def _list(value: object, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise SqakdError(f"{key}={value!r}: expected a list")
    return value


def _texts(value: object, key: str) -> tuple[str, ...]:
    found = _list(value, key)
    if not all(isinstance(item, str) for item in found):
        raise SqakdError(f"{key}={value!r}: expected a list of names")
    return tuple(found)

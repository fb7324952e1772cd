"""The definition as a Weights & Biases workspace. Building it needs no network; saving it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from sqakd.dashboard.definition import CONFIG, Definition, Panel
from sqakd.runs.names import PLACEHOLDERS, pattern

MOST_RUNS = 200  # of a panel; wandb's own limit is ten
TOGETHER = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}


def lines(panel: Panel) -> Any:
    """Metrics over the epochs; a name with a placeholder becomes a pattern."""
    several = any(word in metric for metric in panel.metrics for word in PLACEHOLDERS)
    metrics: dict[str, Any] = {"y": list(panel.metrics)}
    if several:
        metrics = {"metric_regex": "|".join(f"^{pattern(metric).pattern}$" for metric in panel.metrics)}
    log = {"log_y": True} if panel.log else {}
    return wr.LinePlot(
        title=panel.title, x="epoch", title_x="epoch", max_runs_to_show=MOST_RUNS, **metrics, **log, **_group(panel)
    )


def bars(panel: Panel) -> Any:
    """Last values, one bar for each metric and group."""
    return wr.BarPlot(
        title=panel.title,
        metrics=list(panel.metrics),
        max_runs_to_show=MOST_RUNS,
        max_bars_to_show=MOST_RUNS,
        **_group(panel),
    )


def points(panel: Panel) -> Any:
    """One point for each run: the metric over x."""
    assert panel.x is not None
    in_config = panel.x.startswith(CONFIG)
    x = wr.Config(panel.x.removeprefix(CONFIG)) if in_config else wr.SummaryMetric(panel.x)
    log = {"log_x": True} if panel.log else {}
    return wr.ScatterPlot(title=panel.title, x=x, y=wr.SummaryMetric(panel.metrics[0]), **log)


def _group(panel: Panel) -> dict[str, Any]:
    return {} if panel.group is None else {"groupby": wr.Config(panel.group), **TOGETHER}


BUILDERS: dict[str, Callable[[Panel], Any]] = {"lines": lines, "bars": bars, "points": points}


def build(definition: Definition, *, entity: str, project: str, name: str) -> Any:
    """The workspace, not yet saved.

    Args:
        definition: what it shows.
        entity: user or team; may be empty until it is saved.
        project: where the runs are.
        name: the workspace's own.
    """
    sections = [
        ws.Section(name=section.title, panels=[BUILDERS[panel.kind](panel) for panel in section.panels], is_open=True)
        for section in definition.sections
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            groupby=[expr.Config(definition.group)],
            pinned_columns=["run:displayName", *(f"summary:{metric}" for metric in definition.columns)],
        ),
    )


def save(workspace: Any) -> str:
    """Create it as a new view of the project; returns its URL. Needs a login and the network.

    Raises:
        wandb.Error: if the server does not take it.
    """
    workspace.entity = workspace.entity or wandb.Api().default_entity
    return str(workspace.save().url)

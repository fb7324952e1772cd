"""The dashboard as a Weights & Biases workspace. Building the workspace needs no network; saving it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from sqakd.dashboard.definition import CONFIG, Definition, Panel
from sqakd.runs.names import PLACEHOLDERS, pattern

MOST_RUNS = 200  # per panel; the default of wandb is ten
MEAN_AND_STD = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}


def lines(panel: Panel) -> Any:
    """Return a plot of metrics over the epochs; a name with a placeholder becomes a regular expression."""
    has_placeholder = any(name in metric for metric in panel.metrics for name in PLACEHOLDERS)
    metrics: dict[str, Any] = {"y": list(panel.metrics)}
    if has_placeholder:
        metrics = {"metric_regex": "|".join(f"^{pattern(metric).pattern}$" for metric in panel.metrics)}
    log = {"log_y": True} if panel.log else {}
    return wr.LinePlot(
        title=panel.title, x="epoch", title_x="epoch", max_runs_to_show=MOST_RUNS, **metrics, **log, **_group(panel)
    )


def bars(panel: Panel) -> Any:
    """Return a plot of last values, with one bar for each metric and group."""
    return wr.BarPlot(
        title=panel.title,
        metrics=list(panel.metrics),
        max_runs_to_show=MOST_RUNS,
        max_bars_to_show=MOST_RUNS,
        **_group(panel),
    )


def points(panel: Panel) -> Any:
    """Return a plot of a metric over x, with one point for each run."""
    assert panel.x is not None
    in_config = panel.x.startswith(CONFIG)
    x = wr.Config(panel.x.removeprefix(CONFIG)) if in_config else wr.SummaryMetric(panel.x)
    log = {"log_x": True} if panel.log else {}
    return wr.ScatterPlot(title=panel.title, x=x, y=wr.SummaryMetric(panel.metrics[0]), **log)


def _group(panel: Panel) -> dict[str, Any]:
    return {} if panel.group is None else {"groupby": wr.Config(panel.group), **MEAN_AND_STD}


BUILDERS: dict[str, Callable[[Panel], Any]] = {"lines": lines, "bars": bars, "points": points}


def build(definition: Definition, *, entity: str, project: str, name: str) -> Any:
    """Return the workspace, not yet saved.

    Args:
        definition: the panels.
        entity: user or team; may be empty until the workspace is saved.
        project: project of the runs.
        name: name of the workspace.
    """
    sections = [
        ws.Section(name=group.title, panels=[BUILDERS[panel.kind](panel) for panel in group.panels], is_open=True)
        for group in definition.sections
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
    """Save the workspace as a new view of its project and return the address; needs a login and the network.

    Raises:
        wandb.Error: if the server refuses the workspace.
    """
    workspace.entity = workspace.entity or wandb.Api().default_entity
    return str(workspace.save().url)

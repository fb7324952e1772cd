"""The dashboard: a workspace in Weights & Biases with a login, a page on disk without one.

    python -m sqakd.dashboard [--entity NAME] [--project NAME] [--name NAME] [--runs FOLDER] [--html FILE] [--offline]

conf/dashboard.yaml defines the panels of both. Each call with a login creates a new view of the project.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sqakd.interrupts import errors_in_one_line, exit_on_interrupt

if __name__ == "__main__":
    exit_on_interrupt("the same command starts again")

import yaml

from sqakd.advice import left_out
from sqakd.dashboard import definition, page
from sqakd.dashboard.definition import Definition
from sqakd.errors import SqakdError
from sqakd.runs import paper
from sqakd.runs.login import has_login
from sqakd.terminal import printable, program

LOGGER = definition.FILE.parent / "logger" / "wandb.yaml"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: instead of those of the process.
    """
    parser = argparse.ArgumentParser(
        prog=program("python -m sqakd.dashboard"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--entity", default="", help="wandb user or team (the user who is logged in)")
    parser.add_argument("--project", help="wandb project (the one in conf/logger/wandb.yaml)")
    parser.add_argument("--name", help="name of the workspace (the one in conf/dashboard.yaml)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs, for the page (runs)")
    parser.add_argument("--html", type=Path, help="the page (RUNS/dashboard.html); with a login, write it as well")
    parser.add_argument("--offline", action="store_true", help="write the page even if there is a login")
    options = parser.parse_args(arguments)
    with errors_in_one_line():
        shown = definition.read()
        online = not options.offline and has_login()
        if online:
            project = options.project or yaml.safe_load(LOGGER.read_text(encoding="utf-8"))["wandb"]["project"]
            print(_publish(shown, options.entity, project, options.name or shown.name))  # noqa: T201
        elif not options.offline:
            print("no wandb login (run wandb login, or set WANDB_API_KEY): writing the same sections as a page")  # noqa: T201
        if not online or options.html:
            file = options.html or options.runs / "dashboard.html"
            published = paper.FILE if paper.FILE.is_file() else None
            page.write(shown, runs=options.runs, paper=published, file=file, omit=left_out)
            print(printable(file))  # noqa: T201


def _publish(shown: Definition, entity: str, project: str, name: str) -> str:
    """Create the workspace and return its address."""
    try:
        from sqakd.dashboard import workspace  # its package is an extra
    except ImportError as error:
        if (error.name or "").startswith("sqakd"):  # a mistake in this project, not a missing package
            raise
        raise SqakdError(
            f"a workspace needs a package that is not installed ({error})", topic="dashboard.package"
        ) from error
    import wandb

    try:
        return workspace.save(workspace.build(shown, entity=entity, project=project, name=name))
    except wandb.Error as error:
        raise SqakdError(f"wandb refused the workspace ({error})", topic="dashboard.refused") from error


if __name__ == "__main__":
    main()

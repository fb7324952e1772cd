"""The dashboard as one HTML file, made of the runs on disk and the pictures of the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqakd.dashboard.definition import Definition
from sqakd.errors import SqakdError
from sqakd.files import write_errors
from sqakd.report.page import Section, write_page
from sqakd.report.panels import PANELS
from sqakd.report.pictures.curves import agreement_curves, divergence, loss
from sqakd.report.pictures.pareto import operations
from sqakd.report.results import Results, read_results
from sqakd.runs.listing import Omit, strictly

# The pictures of the report, and those that only this page has.
PICTURES: dict[str, Callable[[Results], str]] = {
    **PANELS,
    "loss": loss,
    "agreement_curves": agreement_curves,
    "divergence": divergence,
    "operations": operations,
}


def write(definition: Definition, *, runs: Path, paper: Path | None, file: Path, omit: Omit = strictly) -> None:
    """Write the page. Panels of a group that have the same picture share it.

    Args:
        definition: the panels.
        runs: folder of finished runs.
        paper: paper.csv, or None to show no published numbers.
        file: the page; its folder is created.
        omit: takes the error of a damaged file of a run, which is left out.

    Raises:
        SqakdError: if there is no finished run, a file cannot be read, or the definition names an unknown picture.
    """
    unknown = sorted({panel.picture for panel in definition.panels} - PICTURES.keys())
    if unknown:
        raise SqakdError(f"no picture {', '.join(unknown)}: expected one of {', '.join(PICTURES)}")
    results = read_results([runs], paper, omit=omit)
    sections = []
    for group in definition.sections:
        pictures = dict.fromkeys(panel.picture for panel in group.panels)
        sections.append(Section(group.name, group.title, "\n".join(PICTURES[name](results) for name in pictures)))
    with write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_page(file, title=f"sqakd: {definition.name}", sections=sections)

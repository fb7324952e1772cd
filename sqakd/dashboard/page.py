"""The definition as one HTML file from the runs on disk, in the report's pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqakd.dashboard.definition import Definition
from sqakd.report.page import Section, write_page
from sqakd.report.panels import PANELS
from sqakd.report.pictures.curves import agreement_curves, divergence, loss
from sqakd.report.pictures.pareto import operations
from sqakd.report.records import Results, read_results

# The report's pictures, and those that are on this page alone.
PICTURES: dict[str, Callable[[Results], str]] = {
    **PANELS,
    "loss": loss,
    "agreement_curves": agreement_curves,
    "divergence": divergence,
    "operations": operations,
}


def write(definition: Definition, *, runs: Path, paper: Path | None, file: Path) -> None:
    """Write the page; panels of a section that have the same picture share it.

    Args:
        definition: what it shows.
        runs: folder of finished runs.
        paper: paper.csv, or None for ours alone.
        file: the page; its folder is made.

    Raises:
        ValueError: if there is no finished run, a file cannot be read, or the definition names no picture that exists.
    """
    unknown = sorted({panel.picture for panel in definition.panels} - PICTURES.keys())
    if unknown:
        raise ValueError(f"no picture {', '.join(unknown)}; choose one of {', '.join(PICTURES)}")
    results = read_results([runs], paper)
    sections = []
    for section in definition.sections:
        pictures = dict.fromkeys(panel.picture for panel in section.panels)
        sections.append(Section(section.name, section.title, "\n".join(PICTURES[name](results) for name in pictures)))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_page(file, title=f"sqakd: {definition.name}", sections=sections)

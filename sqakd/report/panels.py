"""Each picture of the report by its name: a figure with its caption, as an HTML fragment without a heading."""

from __future__ import annotations

from collections.abc import Callable

from sqakd.report.records import Results


def _nothing_yet(results: Results) -> str:
    return f"<figure><figcaption>{len(results.runs)} runs</figcaption></figure>"


NAMES = ("paper", "curves", "bits", "ranges", "codes", "agreement", "pareto")
PANELS: dict[str, Callable[[Results], str]] = dict.fromkeys(NAMES, _nothing_yet)

"""The report's pictures by name: functions from results to an HTML figure without a heading."""

from __future__ import annotations

from collections.abc import Callable

from sqakd.report.pictures.curves import curves
from sqakd.report.pictures.paper import paper
from sqakd.report.pictures.pareto import pareto
from sqakd.report.pictures.ranges_and_codes import codes, ranges
from sqakd.report.pictures.scores import agreement, bits, labels
from sqakd.report.results import Results

PANELS: dict[str, Callable[[Results], str]] = {
    "paper": paper,
    "bits": bits,
    "labels": labels,
    "curves": curves,
    "agreement": agreement,
    "pareto": pareto,
    "ranges": ranges,
    "codes": codes,
}
TITLES = {
    "paper": "Paper and ours",
    "bits": "Accuracy",
    "labels": "Against labels alone",
    "curves": "Learning curves",
    "agreement": "Teacher agreement",
    "pareto": "Size and latency",
    "ranges": "Clip ranges",
    "codes": "Code usage",
}

"""Each picture of the report by its name: a figure with its caption, as an HTML fragment without a heading."""

from __future__ import annotations

from collections.abc import Callable

from sqakd.report.pictures.curves import curves
from sqakd.report.pictures.layers import codes, ranges
from sqakd.report.pictures.paper import paper
from sqakd.report.pictures.pareto import pareto
from sqakd.report.pictures.scores import agreement, bits, labels
from sqakd.report.records import Results

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
    "labels": "Against labels",
    "curves": "Learning curves",
    "agreement": "Teacher agreement",
    "pareto": "Size and latency",
    "ranges": "Clip ranges",
    "codes": "Code usage",
}

"""Accuracy against bits, and against cost, each as one SVG file, light and dark, for a README."""

from __future__ import annotations

from sqakd.errors import SqakdError
from sqakd.report.figure import REFERENCE, Picture, method_marks
from sqakd.report.methods import slots
from sqakd.report.pictures.pareto import OPERATIONS, SIZE, cost_charts, cost_legend
from sqakd.report.pictures.scores import bits_charts
from sqakd.report.results import Results, without_shared_changes

BITS_LABEL, COST_LABEL = "accuracy against bits for each quantizer and training method", "accuracy against cost"
SEEDS = "last epoch, mean over seeds; error bars: one standard deviation"


def headline(results: Results) -> str:
    """Return the charts of the report's panel `bits` below their legend.

    Raises:
        SqakdError: if no quantized run has a score.
    """
    results = without_shared_changes(results)
    drawn = bits_charts(results)
    if not drawn.charts:
        raise SqakdError("no quantized run has a score, so there is no picture of accuracy against bits")
    legend = method_marks(drawn.methods, slots(results.cells)) + [(REFERENCE, "float run")] * drawn.has_reference
    networks = dict.fromkeys(" ".join(group.network) for group in drawn.groups)
    footer = f"{', '.join(networks)}: {SEEDS}"
    return Picture(drawn.charts, footer, legend).svg(label=BITS_LABEL, footer=footer)


def cost_picture(results: Results) -> str:
    """Return the charts of accuracy against size and bit-operations below their legend.

    Raises:
        SqakdError: if no run has a score.
    """
    results = without_shared_changes(results)
    charts = [chart for axis in (SIZE, OPERATIONS) for chart in cost_charts(results, axis)]
    if not charts:
        raise SqakdError("no run has a score, so there is no picture of accuracy against cost")
    networks = dict.fromkeys(" ".join(cell.network) for cell in results.cells)
    footer = f"{', '.join(networks)}: {SEEDS}; line: Pareto front"
    return Picture(charts, footer, cost_legend(results)).svg(label=COST_LABEL, footer=footer)

"""Accuracy against bits as one SVG file, light and dark, for a README."""

from __future__ import annotations

from sqakd.errors import SqakdError
from sqakd.report.figure import REFERENCE, Picture, method_marks
from sqakd.report.methods import slots
from sqakd.report.pictures.scores import bits_charts
from sqakd.report.results import Results


def headline(results: Results) -> str:
    """Return the charts of the report's panel `bits` below their legend.

    Raises:
        SqakdError: if no quantized run has a score.
    """
    drawn = bits_charts(results)
    if not drawn.charts:
        raise SqakdError("no quantized run has a score, so there is no picture of accuracy against bits")
    legend = method_marks(drawn.methods, slots(results.cells)) + [(REFERENCE, "float run")] * drawn.has_reference
    networks = dict.fromkeys(" ".join(group.network) for group in drawn.groups)
    footer = f"{', '.join(networks)}: last epoch, mean over seeds; error bars: one standard deviation on each side"
    picture = Picture(drawn.charts, footer, legend)
    return picture.svg(label="accuracy against bits for each quantizer and training method", footer=footer)

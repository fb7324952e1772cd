"""The picture of a sensitivity: a heat map of layers and bits for weights and one for inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sqakd.files import replacing
from sqakd.report.charts.palette import light_colours

LEAST = 1e-6  # smaller losses have the colour of this one
MARK = light_colours()["s0"]


def draw_sensitivity(
    file: Path,
    *,
    layers: Sequence[str],
    bits: Sequence[int],
    losses: Mapping[str, Sequence[Sequence[float]]],
    unit: str,
    chosen: Mapping[str, Mapping[str, int]] | None = None,
) -> None:
    """Write the picture as a PNG file.

    Args:
        file: where to write.
        layers: names of the layers, from the input to the output.
        bits: numbers of bits.
        losses: for "weights" and "inputs", the loss of each layer and number of bits.
        unit: name of the loss.
        chosen: for "weights" and "inputs", the bits of each layer to mark.
    """
    figure = Figure(figsize=(11, 1.8 + 0.3 * len(layers)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    values = [max(loss, LEAST) for table in losses.values() for row in table for loss in row]
    norm = LogNorm(min(values), max(max(values), 2 * min(values)))
    axes = [figure.add_subplot(1, len(losses), i + 1) for i in range(len(losses))]
    for one, (name, table) in zip(axes, losses.items(), strict=True):
        shown = [[max(loss, LEAST) for loss in row] for row in table]
        image = one.imshow(shown, norm=norm, aspect="auto", cmap="viridis")
        _label(one, layers, bits, table, norm)
        one.set(title=f"{name}: {unit}", xlabel="bits")
        for layer, number in (chosen or {}).get(name, {}).items():
            place = bits.index(number) - 0.5, layers.index(layer) - 0.5
            one.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor=MARK, linewidth=3))
    figure.colorbar(image, ax=axes)
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png")


def _label(
    axes: Axes, layers: Sequence[str], bits: Sequence[int], table: Sequence[Sequence[float]], norm: LogNorm
) -> None:
    """Write the names of rows and columns, and the number into each field."""
    axes.set_xticks(range(len(bits)), [str(number) for number in bits])
    axes.set_yticks(range(len(layers)), layers, parse_math=False, fontsize=7)
    for y, row in enumerate(table):
        for x, loss in enumerate(row):
            dark = norm(max(loss, LEAST)) < 0.6
            axes.text(x, y, f"{loss:.1e}", ha="center", va="center", fontsize=6, color="white" if dark else "black")

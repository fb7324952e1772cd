"""Clip ranges of the quantizers, and how often each code is used, layer by layer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from sqakd.report.cells import Cell
from sqakd.report.charts.by_layer import SHADES, RangeBar, Usage, draw_codes, draw_ranges
from sqakd.report.charts.svg import padded, tag, text
from sqakd.report.figure import Chart, facets, figure, legend_html, nothing
from sqakd.report.methods import method, slots
from sqakd.report.pictures.selection import bits_in_order, quantized
from sqakd.report.results import Results

Row = Mapping[str, float]  # of quantizers.csv
Shown = tuple[Cell, Sequence[Row], str]  # a cell, its rows of quantizers.csv, and its title
CODE = re.compile(r"code_(-?\d+)")
TENSORS = ((1.0, "weights"), (0.0, "inputs"))
NOTHING = "No quantized run has a quantizers.csv."
FIRST_SEED = "Each cell is represented by its first seed, after the last epoch, on one validation batch."


def ranges(results: Results) -> str:
    """Return the picture of the clip ranges of weights and inputs."""
    blocks, without = _blocks(results, _ranges)
    note = f"The files of {', '.join(without)} have no range: it depends on the values, or differs by channel."
    if not blocks:
        return nothing(note if without else NOTHING)
    caption = (
        "Clip range of each layer's quantizer: values outside are set to the nearer end. Layers are counted from the"
        f" input, without those that stay float. Charts of one tensor have the same scale. {FIRST_SEED}"
    )
    return figure(blocks, caption=f"{caption} {note}" if without else caption)


def codes(results: Results) -> str:
    """Return the picture of the code usage of weights and inputs."""
    blocks, _ = _blocks(results, _codes)
    if not blocks:
        return nothing(NOTHING)
    caption = (
        "Share of each code among the weights or inputs of a layer; a code without a shade is never used. Entropy of"
        f" the codes in bits, mean over the layers. Layers are counted from the input. {FIRST_SEED}"
    )
    return figure(_shades(), blocks, caption=caption)


def clip_range(quantizer: str, row: Row) -> tuple[float, float] | None:
    """Return the clip range of a quantizer from its row of quantizers.csv; None if the row has no range.

    A row of EWGS has the bounds, one of LSQ the step, one of PACT the clip. The range of DoReFa's inputs is fixed.
    DoReFa's weights, and all tensors of its released code, have no range: they are divided by their maximum first.
    """
    ends = _ends(quantizer, row)
    return ends if ends and all(math.isfinite(end) for end in ends) else None


def _ends(quantizer: str, row: Row) -> tuple[float, float] | None:
    codes = used_codes(row)
    if not codes:
        return None
    if quantizer.startswith("dorefa"):
        fixed = not row["is_weight"] and "step" not in row and "clip_low" in row and "clip_high" in row
        return (row["clip_low"], row["clip_high"]) if fixed else None
    if "lower" in row and "upper" in row:
        return row["lower"], row["upper"]
    low, high = min(codes), max(codes)
    if "step" in row and "clip_low" in row and "clip_high" in row:  # the step itself may be rounded to a power of two
        return row["clip_low"], row["clip_high"]
    if "step" in row:
        return low * abs(row["step"]), high * abs(row["step"])
    if "alpha" in row and low < high:  # from 0, or to both sides
        step = abs(row["alpha"]) * (2 if low < 0 else 1) / (high - low)
        return low * step, high * step
    return None


def used_codes(row: Row) -> dict[int, float]:
    """Return the share of each code of the grid, with 0 for codes that are never used."""
    found = ((CODE.fullmatch(key), share) for key, share in row.items())
    return {int(code[1]): share for code, share in found if code and math.isfinite(share)}


def entropy(shares: Iterable[float]) -> float:
    """Return the entropy of a distribution in bits.

    >>> entropy([0.5, 0.5, 0.0])
    1.0
    """
    return -sum(share * math.log2(share) for share in shares if share > 0)


def _blocks(results: Results, draw: Callable[[Sequence[Shown], Mapping[str, int]], str]) -> tuple[str, list[str]]:
    """Return a block for each network, quantizer and bits, the first one open, and the quantizers without any chart."""
    known = slots(results.cells)
    blocks: list[str] = []
    without: dict[str, None] = {}
    for network, cells in quantized(results).items():
        for quantizer in sorted({cell.quantizer for cell in cells}):
            for bits in bits_in_order(cells):
                some = [cell for cell in cells if (cell.quantizer, cell.bits) == (quantizer, bits)]
                some.sort(key=lambda cell: known[method(cell)])
                found = [shown for cell in some if (shown := _first_seed(results, cell))]
                body = draw(found, known)
                if body:
                    summary = tag("summary", text(" ".join([*network, quantizer, bits])))
                    blocks.append(tag("details", summary, body, **({} if blocks else {"open": ""})))
                elif found:
                    without[quantizer] = None
    return "".join(blocks), list(without)


def _first_seed(results: Results, cell: Cell) -> Shown | None:
    """Return the rows of a cell's first seed; None if it has none."""
    first = results.cells[cell][0]
    return (cell, first.quantizers, f"{method(cell)}, seed {first.seed}") if first.quantizers else None


def _ranges(found: Sequence[Shown], known: Mapping[str, int]) -> str:
    parts = []
    for is_weight, tensor in TENSORS:
        bars = [
            [bar for row in rows if row["is_weight"] == is_weight and (bar := _bar(cell, row, tensor))]
            for cell, rows, _ in found
        ]
        ends = padded([0.0, *(end for some in bars for bar in some for end in (bar.low, bar.high))])
        for some, (cell, rows, title) in zip(bars, found, strict=True):
            if some:
                label = f"Range of {tensor}, {cell}"
                svg = draw_ranges(some, _layers(rows), ends, known[method(cell)], label=label)
                parts.append(Chart(f"{title}: {tensor}", svg))
    return facets(parts) if parts else ""


def _bar(cell: Cell, row: Row, tensor: str) -> RangeBar | None:
    ends = clip_range(cell.quantizer, row)
    if ends is None:
        return None
    layer, (low, high) = int(row["layer"]), sorted(ends)
    return RangeBar(layer, low, high, f"layer {layer}, {tensor}: {ends[0]:.3g} to {ends[1]:.3g}")


def _codes(found: Sequence[Shown], known: Mapping[str, int]) -> str:
    parts = []
    for is_weight, tensor in TENSORS:
        for cell, rows, title in found:
            usages = [_usage(row, tensor) for row in rows if row["is_weight"] == is_weight and used_codes(row)]
            if not usages:
                continue
            mean = sum(entropy(usage.shares.values()) for usage in usages) / len(usages)
            unused = sum(share == 0 for usage in usages for share in usage.shares.values())
            of = cell.w_bits if is_weight else cell.a_bits
            note = f"entropy {mean:.2f} of {of} bit{'s' if of > 1 else ''}" + (
                f"; never used: {unused} code{'s' if unused > 1 else ''}" if unused else ""
            )
            svg = draw_codes(usages, _layers(rows), label=f"Codes of {tensor}, {cell}: {note}")
            parts.append(Chart(f"{title}: {tensor}", svg, note))
    return facets(parts) if parts else ""


def _usage(row: Row, tensor: str) -> Usage:
    layer, shares = int(row["layer"]), used_codes(row)
    most = max(shares, key=lambda code: shares[code])
    title = (
        f"layer {layer}, {tensor}: {sum(share > 0 for share in shares.values())} of {len(shares)} codes,"
        f" {entropy(shares.values()):.2f} bits; most: {most} ({100 * shares[most]:.0f}%)"
    )
    return Usage(layer, shares, title)


def _layers(rows: Sequence[Row]) -> int:
    return int(max(row["layer"] for row in rows)) + 1


def _shades() -> str:
    """Return the legend of a heat map."""
    names = ["more than 0", *(f"{100 * share:.0f}% or more" for share in SHADES[1:])]
    boxes = [tag("path", class_=f"heat h{i}", d="M0 6h26", style="stroke-width:12") for i in range(len(names))]
    return legend_html(list(zip(boxes, names, strict=True)))
